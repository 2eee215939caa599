"""A worker process: connects, does jobs, tells what came. `python -m trtserve_client.load.worker FD`.

It ends when its harness closes the connection, however the harness itself ended, so that no worker outlives it.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from multiprocessing.connection import Connection as Pipe

import grpc

from trtserve_client.errors import ClientError
from trtserve_client.load.drives import Drive, make_drive
from trtserve_client.load.jobs import Failed, Job, Plan, Progress, Ready, Stop
from trtserve_client.load.recorder import Recorder
from trtserve_client.load.senders import Sender, make_sender, open_channel
from trtserve_client.load.socket_sender import SocketSender

_REPORT_S = 0.2
_CONNECT_S = 10.0
_GARBAGE = (20_000, 50, 50)
_SWITCH_S = 0.0005
"""How long a thread keeps the interpreter from the others; the clock of an open loop must not wait for 5 ms."""


def main() -> None:
    """Serves the harness at the file descriptor that is the only argument."""
    sys.setswitchinterval(_SWITCH_S)
    pipe = Pipe(int(sys.argv[1]))
    try:
        plan: Plan = pipe.recv()
        sender = _connect(plan)
        if isinstance(sender, Failed):
            pipe.send(sender)
        else:
            pipe.send(Ready())
            # A collection stops all threads in the middle of a measurement: few of them, and none of what lives on.
            gc.freeze()
            gc.set_threshold(*_GARBAGE)
            while (job := pipe.recv()) is not None:
                _run(job, sender, pipe, plan.connection.timeout_s)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    # Calls may still be under way, and nobody waits for them.
    os._exit(0)


def _connect(plan: Plan) -> Sender | Failed:
    url = plan.connection.url
    try:
        if plan.connection.tls is None and not url.startswith("grpcs:"):
            return SocketSender(plan.connection, plan.messages)
        channel = open_channel(plan.connection)
        grpc.channel_ready_future(channel).result(_CONNECT_S)
    except (ClientError, OSError) as error:
        return Failed(f"{url}: {error}")
    except grpc.FutureTimeoutError:
        return Failed(f"no connection to {url} within {_CONNECT_S:g} s")
    return make_sender(channel, plan.connection, plan.messages)


def _run(job: Job, sender: Sender, pipe: Pipe, timeout_s: float) -> None:
    recorder = Recorder(job.window)
    drive = make_drive(job, sender, recorder)
    drive.start()
    while drive.sending:
        if pipe.poll(_REPORT_S) and isinstance(pipe.recv(), Stop):
            drive.stop()
            break
        pipe.send(_progress(recorder))
    _drain(drive, recorder, pipe, timeout_s)
    pipe.send(_progress(recorder))
    pipe.send(drive.finished())


def _drain(drive: Drive, recorder: Recorder, pipe: Pipe, timeout_s: float) -> None:
    """Waits for the answers to what was sent, which a stop cuts short; requests on streams have no own limit."""
    until = time.monotonic() + timeout_s
    while not drive.wait(_REPORT_S) and time.monotonic() < until + _REPORT_S:
        pipe.send(_progress(recorder))
        if pipe.poll() and isinstance(pipe.recv(), Stop):
            return


def _progress(recorder: Recorder) -> Progress:
    times = os.times()
    cpu_s = times.user + times.system
    return Progress(time.monotonic(), cpu_s, recorder.take(), recorder.first_error, recorder.take_timings())


if __name__ == "__main__":
    main()
