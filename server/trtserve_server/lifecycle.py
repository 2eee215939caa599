"""The life of the server process: start, say so, wait for a signal, drain, stop. A second signal forces the end.

A device that is lost to the process ends it too, with an exit code of its own, so that a supervisor starts it again.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from typing import NoReturn

from trtserve_server.app import App
from trtserve_server.banner import banner
from trtserve_server.config import ServerConfig
from trtserve_server.log_output import LogOutput

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXIT_FORCED = 1
EXIT_DEVICE_LOST = 3


async def serve(config: ServerConfig, output: LogOutput, started: float) -> NoReturn:
    """Runs a server until a signal; `output` is the log's; `started` is when the process began (time.monotonic).

    Ends the process itself: a model may still load, warm up or run.
    """
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, signals.put_nowait, number)
    app = App(config, output)
    starting = asyncio.ensure_future(app.start())
    signalled = asyncio.ensure_future(signals.get())
    await asyncio.wait({starting, signalled}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        log.info("%s during start: stopping", signalled.result().name)
        starting.cancel()
        await app.close()
        _leave(0)
    starting.result()
    calm_garbage_collector()
    print(banner(app, time.monotonic() - started), flush=True)
    lost = asyncio.ensure_future(app.device_lost.wait())
    await asyncio.wait({signalled, lost}, return_when=asyncio.FIRST_COMPLETED)
    why = "the device is lost" if lost.done() else signalled.result().name
    before = f"taking calls for {config.shutdown_delay_s:g} s more, then " if config.shutdown_delay_s else ""
    log.info("%s: %sdraining for at most %g s", why, before, config.drain_timeout_s)
    signalled.cancel()
    code = await _drain(app, config, signals)
    if lost.done():
        log.critical("stopped because a device was lost; only a new process can use it again")
        code = EXIT_DEVICE_LOST
    _leave(code)


def calm_garbage_collector() -> None:
    """Takes what has been made so far out of Python's search for cycles, and lets that search come less often.

    Requests form no cycles, so most of the searches find nothing; with 100,000 requests waiting they cost as much as
    the scheduling itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


async def _drain(app: App, config: ServerConfig, signals: asyncio.Queue[signal.Signals]) -> int:
    stopping = asyncio.ensure_future(app.stop(config.drain_timeout_s))
    second = asyncio.ensure_future(signals.get())
    await asyncio.wait({stopping, second}, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        log.warning("%s again: stopping at once; what runs gets no answer", second.result().name)
        _leave(EXIT_FORCED)
    second.cancel()
    if not stopping.result():
        limit = config.drain_timeout_s
        log.warning("stopped after %g s with requests unanswered; raise drain_timeout_s to wait longer", limit)
        _leave(EXIT_FORCED)
    log.info("drained; stopped")
    return 0


def _leave(code: int) -> NoReturn:
    """Ends the process without waiting for its threads: one may be deep in a model that loads or runs for ever."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
