"""The instances of one model: makes them, starts them, knows when all are warm, ends them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat

from trtserve_engines.engine import Engine, ExecutionContext
from trtserve_server.models.loader import LoadedModel, warm_up
from trtserve_server.scheduling.batcher import Batcher
from trtserve_server.scheduling.instance import InlineInstance, Instance, ThreadInstance
from trtserve_server.scheduling.reactor import Reactor

log = logging.getLogger(__name__)

Ready = Callable[[Exception | None], None]


class InstanceGroup:
    """The instances of `loaded`, which work for `batcher`. All but `close` belongs to the scheduling thread."""

    def __init__(self, loaded: LoadedModel, batcher: Batcher, reactor: Reactor) -> None:
        self._loaded = loaded
        self._batcher = batcher
        self._reactor = reactor
        self._name = f"{loaded.source.name}/{loaded.source.version}"
        self._instances: list[Instance] = []
        self._stopped = False
        self._starting = 0
        self._on_ready: Ready | None = None

    def start(self, on_ready: Ready) -> None:
        """Starts the instances; `on_ready` gets None once all are warm, or the first failure."""
        self._on_ready = on_ready
        self._starting = self._loaded.instances
        kind: type[InlineInstance] | type[ThreadInstance] = InlineInstance if self._loaded.inline else ThreadInstance
        if self._loaded.inline:
            log.info("%s runs without a thread: its largest batch is quicker than a change of threads", self._name)
        self._instances = [
            kind(
                f"{self._name}#{number}",
                partial(self._create_context, engine),
                self._reactor,
                on_started=self._started,
                on_finished=self._batcher.batch_finished,
            )
            for number, engine in enumerate(self._engines())
        ]
        for instance in self._instances:
            instance.start()

    def stop(self) -> None:
        """Ends the instances after what they run now. May be called again."""
        if not self._stopped:
            self._stopped = True
            for instance in self._instances:
                instance.stop()

    def close(self, timeout_s: float) -> bool:
        """Waits for the instances' end and frees the engine; False where one still runs. Blocks; from any thread."""
        ended = [instance.join(timeout_s) for instance in self._instances]
        if all(ended):
            self._loaded.opened.close()
        return all(ended)

    def _engines(self) -> Iterator[Engine]:
        """The engine of each instance."""
        for engine, count in self._loaded.opened.engines:
            yield from repeat(engine, count)

    def _create_context(self, engine: Engine) -> ExecutionContext:
        """A warm context for the calling thread."""
        loaded = self._loaded
        context = engine.create_context(batched=loaded.max_batch_size > 0)
        try:
            warm_up(
                context,
                engine.signature,
                max_batch_size=loaded.max_batch_size,
                runs=loaded.source.config.warmup_runs,
            )
        except BaseException:
            context.close()
            raise
        return context

    def _started(self, instance: Instance, error: Exception | None) -> None:
        self._starting -= 1
        if error is None:
            self._batcher.instance_idle(instance)
        if (error or self._starting == 0) and self._on_ready:
            on_ready, self._on_ready = self._on_ready, None
            on_ready(error)
