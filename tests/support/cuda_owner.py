"""Another process that holds memory of a GPU and does with it what it is told: the other side of CUDA shared memory."""

from __future__ import annotations

import subprocess
import sys

_OWNER = """
import sys
from trtserve_engines.cuda.open_driver import open_driver
import numpy as np
device = open_driver(sys.argv[1]).open(0)
memory = device.allocate(int(sys.argv[2]))
print(memory.ipc_handle().hex(), flush=True)
for line in sys.stdin:
    word, offset, rest = line.split(" ", 2)
    if word == "put":
        data = np.frombuffer(bytes.fromhex(rest), np.uint8)
        device.write(memory.address + int(offset), data)
        print("ok", flush=True)
    else:
        data = np.empty(int(rest), np.uint8)
        device.read(data, memory.address + int(offset))
        print(data.tobytes().hex(), flush=True)
memory.free()
device.close()
"""


class CudaOwner:
    """`size` bytes of GPU 0, held by another process until `close`."""

    def __init__(self, driver: str, size: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _OWNER, driver, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.handle = bytes.fromhex(self._line())

    def put(self, offset: int, data: bytes) -> None:
        """Writes to the memory."""
        self._say(f"put {offset} {data.hex()}")

    def get(self, offset: int, size: int) -> bytes:
        """Reads from the memory."""
        return bytes.fromhex(self._say(f"get {offset} {size}"))

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate(timeout=60)

    def _say(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the owner of the memory has ended"
        return line
