"""What a server offers of shared memory: nothing, system memory, or that of its GPUs too."""

from __future__ import annotations

import gc

from trtserve_engines.cuda.open_driver import open_driver
from trtserve_engines.errors import BackendUnavailableError
from trtserve_server.config import ServerConfig
from trtserve_server.shared_memory.cuda import CudaMemory, CudaRegion
from trtserve_server.shared_memory.regions import Regions
from trtserve_server.shared_memory.system import SystemRegion


class SharedMemoryOffer:
    """`regions` is None where clients may not share memory; `cuda` is None where no GPU can be used, for a reason.

    Belongs to the event loop's thread.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.prefix = config.client_shared_memory_prefix
        self.regions: Regions | None = None
        self.cuda: CudaMemory | None = None
        self.why_no_cuda = ""
        if config.allow_client_shared_memory:
            self.regions = Regions()
            try:
                self.cuda = CudaMemory(open_driver())
            except BackendUnavailableError as error:
                self.why_no_cuda = str(error)

    @property
    def extensions(self) -> frozenset[str]:
        """Triton's names of what is offered."""
        offered = {"system_shared_memory": self.regions, "cuda_shared_memory": self.cuda}
        return frozenset(name for name, part in offered.items() if part is not None)

    def close(self) -> None:
        """Forgets every region and gives the GPUs back."""
        if self.regions is not None:
            self.regions.remove("", SystemRegion)
            self.regions.remove("", CudaRegion)
        if self.cuda is not None:
            gc.collect()  # tracebacks of errors may still hold regions, whose memory has to go before the GPU does
            self.cuda.close()
