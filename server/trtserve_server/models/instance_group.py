"""The instances of one model: makes them, starts them, knows when all are warm, replaces those that are lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat

from trtserve_engines.engine import Engine, ExecutionContext
from trtserve_engines.errors import DeviceLostError
from trtserve_server.models.checked_context import checked
from trtserve_server.models.loader import LoadedModel
from trtserve_server.models.warmup import warm_up
from trtserve_server.scheduling.batch import Batch
from trtserve_server.scheduling.batcher import Batcher
from trtserve_server.scheduling.host import Host
from trtserve_server.scheduling.instance import InlineInstance, Instance, Outcome, Reports, ThreadInstance
from trtserve_server.statistics import NanCount

log = logging.getLogger(__name__)

Ready = Callable[[Exception | None], None]

MAX_LOST = 8
"""Instances that hang or die before no more are made: each that hangs keeps a thread and its memory."""


class InstanceGroup:
    """The instances of `loaded`, which work for `batcher`. All but `close` belongs to the scheduling thread."""

    def __init__(self, loaded: LoadedModel, batcher: Batcher, host: Host, nan: NanCount) -> None:
        self._loaded = loaded
        self._batcher = batcher
        self._host = host
        self._nan = nan
        self._name = f"{loaded.source.name}/{loaded.source.version}"
        self._instances: list[Instance] = []
        self._engine_of: dict[Instance, Engine] = {}
        self._stopped = False
        self._made = 0
        self._lost = 0
        self._alive = 0
        self._starting = 0
        self._on_ready: Ready | None = None
        self.on_broken: Callable[[str], None] = lambda reason: None
        """Called with the reason once no instance is left and none will be made."""

    def start(self, on_ready: Ready) -> None:
        """Starts the instances; `on_ready` gets None once all are warm, or the first failure."""
        self._on_ready = on_ready
        self._batcher.on_lost = self._replace
        self._starting = self._loaded.instances
        if self._loaded.inline:
            log.info("%s runs without a thread: its largest batch is quicker than a change of threads", self._name)
        elif self._loaded.inline_rows:
            log.info("%s runs batches of up to %d rows without a thread", self._name, self._loaded.inline_rows)
        for instance in [self._make(engine) for engine in self._engines()]:
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

    def _make(self, engine: Engine) -> Instance:
        kind: type[InlineInstance] | type[ThreadInstance] = InlineInstance if self._loaded.inline else ThreadInstance
        instance = kind(
            f"{self._name}#{self._made}",
            self._host.device(engine.device),
            partial(self._create_context, engine),
            self._host.reactor,
            Reports(self._started, self._finished, self._batcher.instance_died),
        )
        self._made += 1
        self._alive += 1
        self._instances.append(instance)
        self._engine_of[instance] = engine
        return instance

    def _create_context(self, engine: Engine) -> ExecutionContext:
        """A warm context for the calling thread."""
        loaded = self._loaded
        context = engine.create_context(batched=loaded.max_batch_size > 0)
        try:
            warm_up(
                context,
                engine,
                loaded.signature,
                max_batch_size=loaded.max_batch_size,
                runs=loaded.source.config.warmup_runs,
            )
            for request in loaded.warmup:
                request.run(context)
        except BaseException:
            context.close()
            raise
        interval = loaded.source.config.nan_check_interval
        return checked(self._name, context, engine.signature.outputs, interval, self._nan)

    def _started(self, instance: Instance, error: Exception | None) -> None:
        self._starting -= 1
        if error is None:
            self._batcher.instance_idle(instance)
        elif self._on_ready is None:  # a replacement
            self._alive -= 1
            self._check_alive(f"{instance.name} could not be started: {error}")
        if (error or self._starting == 0) and self._on_ready:
            on_ready, self._on_ready = self._on_ready, None
            on_ready(error)

    def _finished(self, instance: Instance, batch: Batch, outcome: Outcome, started: float, ended: float) -> None:
        self._batcher.batch_finished(instance, batch, outcome, started, ended)
        if isinstance(outcome, DeviceLostError):
            self._host.on_device_lost(f"{instance.name}: {outcome}")

    def _replace(self, instance: Instance, reason: str) -> None:
        self._alive -= 1
        self._lost += 1
        if self._lost <= MAX_LOST:
            replacement = self._make(self._engine_of[instance])
            self._starting += 1
            log.warning("%s is replaced by %s", instance.name, replacement.name)
            replacement.start()
        self._check_alive(f"{instance.name}: {reason}")

    def _check_alive(self, reason: str) -> None:
        if self._alive == 0:
            log.error("%s: no instance is left; the last one, %s", self._name, reason)
            self._batcher.fail(reason)
            self.on_broken(reason)
