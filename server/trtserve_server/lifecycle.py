"""The life of the server process: start, say so, wait for a signal, drain, stop. A second signal forces the end."""

from __future__ import annotations

import asyncio
import logging
import signal
import time

from trtserve_server.app import App
from trtserve_server.banner import banner
from trtserve_server.config import ServerConfig

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXIT_FORCED = 1


async def serve(config: ServerConfig, started: float) -> int:
    """Runs a server until a signal; returns the exit code. `started` is when the process began (time.monotonic)."""
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, signals.put_nowait, number)
    app = App(config)
    starting = asyncio.ensure_future(app.start())
    signalled = asyncio.ensure_future(signals.get())
    await asyncio.wait({starting, signalled}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        log.info("%s during start: stopping", signalled.result().name)
        starting.cancel()
        await app.close()
        return 0
    starting.result()
    print(banner(app, time.monotonic() - started), flush=True)
    log.info("%s: draining for at most %g s", (await signalled).name, config.drain_timeout_s)
    return await _drain(app, config, signals)


async def _drain(app: App, config: ServerConfig, signals: asyncio.Queue[signal.Signals]) -> int:
    stopping = asyncio.ensure_future(app.stop(config.drain_timeout_s))
    second = asyncio.ensure_future(signals.get())
    await asyncio.wait({stopping, second}, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        log.warning("%s again: stopping at once; what runs gets no answer", second.result().name)
        stopping.cancel()
        return EXIT_FORCED
    second.cancel()
    if stopping.result():
        log.info("drained; stopped")
        return 0
    log.warning(
        "stopped after %g s with requests unanswered; raise drain_timeout_s to wait longer", config.drain_timeout_s
    )
    return EXIT_FORCED
