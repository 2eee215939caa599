"""A guard on SIGBUS: mapped memory that another process cuts off reads as zeros, where it would end this process.

Knows ranges of addresses, neither regions nor requests. Linux on x86_64 and aarch64; elsewhere `why_not` says so.

Touching a shared mapping behind the end of its file raises SIGBUS in the thread that touches it. The handler puts zero
pages there, notes it in the range, and the instruction goes on. For any other SIGBUS it puts the former action back
and lets the signal take its course, so that faulthandler tells of it, or the process ends, as without the guard.

Why the handler may be a Python function. The signal is synchronous: it comes at an instruction that reads or writes
the range, and nowhere else, so the handler is a call that this instruction makes.

- No lock of the C library, of its allocator or of Python's is held there: those work on memory of their own. Nor is
  one of ONNX Runtime's, whose threads hold none while a kernel runs.
- The thread may hold the GIL (then ctypes finds that it has it), have let it go (then it waits for its turn: nobody
  holds the GIL while waiting for a kernel), or be unknown to Python, as ONNX Runtime's threads are (then ctypes makes a
  state for it and drops it).
- It runs on the thread's own stack, which the fault says nothing against; SIGBUS is blocked in that thread meanwhile,
  and the handler touches no guarded memory. It calls the C library without letting the GIL go.
- Two threads may fault at once: the second finds the range broken already, and goes on.

Not covered: a thread that blocks SIGBUS (the kernel ends the process; no thread here does), code that puts another
action in the guard's place after the last mapping was made, and memory errors of the hardware, which are not masked.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import signal
import sys

MACHINES = ("x86_64", "aarch64")
"""Where the C structures are as they are written down here."""

MOST_BYTES = 1 << 44
"""Of all ranges together: a client's file may have any size without taking memory, but addresses end at 128 TiB."""

_SA_SIGINFO = 4
_BUS_ADRERR = 2
_CODE, _ADDRESS = 8, 16  # in siginfo_t
_ANYWHERE_ZERO = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10  # MAP_FIXED, which Python does not name
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE

# PyDLL keeps the GIL during calls, so that the handler is one piece with respect to other Python threads.
libc = ctypes.PyDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class GuardedRange:
    """Addresses from `start` to `end`, whole pages of one mapping. From `broken_from` on they are shared no more."""

    __slots__ = ("broken_from", "end", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.broken_from = end


class _Action(ctypes.Structure):
    """struct sigaction."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_ranges: dict[int, GuardedRange] = {}  # by start; every change is one step, and so is the handler's look at it
_former = _Action()


def why_not(size: int = 0) -> str:
    """Why no `size` bytes can be guarded here; "" where they can."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        return f"memory can be guarded on Linux on {' and '.join(MACHINES)} only"
    if size + sum(guarded.end - guarded.start for guarded in tuple(_ranges.values())) > MOST_BYTES:
        return f"{MOST_BYTES >> 40} TiB of clients' memory are mapped, which is the most"
    return ""


def guard(guarded: GuardedRange) -> None:
    """Guards a range that is mapped until `release`. Raises OSError where no handler can be installed."""
    current = _Action()
    _sigaction(None, current)
    if current.handler != _GUARD.handler:
        ctypes.memmove(ctypes.byref(_former), ctypes.byref(current), ctypes.sizeof(_Action))
        _sigaction(_GUARD, None)
    _ranges[guarded.start] = guarded


def release(guarded: GuardedRange) -> None:
    """Ends the guard; to be called before the range is unmapped, for then the addresses may become another's."""
    _ranges.pop(guarded.start, None)


def _sigaction(new: _Action | None, old: _Action | None) -> None:
    if libc.sigaction(signal.SIGBUS, new and ctypes.byref(new), old and ctypes.byref(old)):
        raise OSError(ctypes.get_errno(), "sigaction failed")


def _on_sigbus(number: int, info: int, context: int) -> None:
    code = ctypes.c_int.from_address(info + _CODE).value
    if code == _BUS_ADRERR and _mended(ctypes.c_void_p.from_address(info + _ADDRESS).value or 0):
        return
    libc.sigaction(signal.SIGBUS, ctypes.byref(_former), None)
    ctypes.memset(ctypes.byref(_former), 0, ctypes.sizeof(_Action))  # the default, should the former one come back here
    if code <= 0:  # sent by a process: no instruction will raise it again
        signal.raise_signal(signal.SIGBUS)


def _mended(address: int) -> bool:
    for guarded in tuple(_ranges.values()):
        if guarded.start <= address < guarded.end:
            if address >= guarded.broken_from:
                return True  # another thread has been here
            page = address & -mmap.PAGESIZE
            guarded.broken_from = page  # before there are zeros: nobody may read them who cannot know
            return bool(libc.mmap(page, guarded.end - page, _READ_WRITE, _ANYWHERE_ZERO, -1, 0) == page)
    return False


_callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(_on_sigbus)
_GUARD = _Action(handler=ctypes.cast(_callback, ctypes.c_void_p).value, flags=_SA_SIGINFO)
