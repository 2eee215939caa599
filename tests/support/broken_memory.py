"""`python -m tests.support.broken_memory SCENE` touches mapped memory that has been cut off, in a process of its own.

Each scene is a function; one that comes to its end has had no signal that was not caught.
"""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable

import numpy as np

from trtserve_server.shared_memory.mapping import Mapping

PAGE = mmap.PAGESIZE
PAGES = 4096
LARGE = PAGES * PAGE

Scene = Callable[[], None]
SCENES: dict[str, Scene] = {}


def scene(function: Scene) -> Scene:
    """Makes the function one that can be named."""
    SCENES[function.__name__] = function
    return function


class File:
    """A file that nobody can name, with ones in it; mapped as `bytes`."""

    def __init__(self, size: int = LARGE, offset: int = 0) -> None:
        self._file = tempfile.TemporaryFile(dir="/dev/shm")  # noqa: SIM115 - it lives as long as the process
        self._file.truncate(size)
        self.mapping = Mapping(self._file.fileno(), offset, size - offset)
        self.bytes = self.mapping.bytes()
        self.bytes[:] = 1

    @property
    def size(self) -> int:
        """That of the file now."""
        return os.fstat(self._file.fileno()).st_size

    def cut(self, size: int) -> None:
        """Makes the file shorter, or longer."""
        self._file.truncate(size)


@scene
def numpy_that_has_let_the_gil_go() -> None:
    """A sum runs over the end of the file."""
    file = File()
    file.cut(LARGE // 2)
    assert file.bytes.sum(dtype=np.int64) == LARGE // 2
    assert file.mapping.is_shared(LARGE // 2)
    assert not file.mapping.is_shared(LARGE // 2 + 1)


@scene
def python_that_holds_the_gil() -> None:
    """One byte is read while another thread wants the GIL."""
    file = File()
    file.cut(0)
    stop = threading.Event()
    thread = threading.Thread(target=lambda: all(not stop.is_set() for _ in iter(int, 1)))
    thread.start()
    assert memoryview(file.bytes)[LARGE - 1] == 0
    assert memoryview(file.bytes)[0] == 0
    stop.set()
    thread.join()
    assert not file.mapping.is_shared(1)


@scene
def a_write_behind_the_end() -> None:
    """What is written there goes nowhere, and the file keeps its size."""
    file = File()
    file.cut(PAGE)
    file.bytes[:] = 7
    assert (file.bytes == 7).all()
    assert file.size == PAGE


@scene
def a_file_that_has_grown() -> None:
    """Nothing breaks, and nothing behind the mapping is reached."""
    file = File()
    file.cut(2 * LARGE)
    assert file.bytes.sum(dtype=np.int64) == LARGE
    assert file.mapping.is_shared(LARGE)


@scene
def one_of_many() -> None:
    """Only the broken mapping is touched by what mends it."""
    files = [File(4 * PAGE) for _ in range(100)]
    files[50].cut(PAGE)
    assert [file.bytes.sum() // PAGE for file in files] == [4] * 50 + [1] + [4] * 49
    assert [file.mapping.is_shared(4 * PAGE) for file in files] == [True] * 50 + [False] + [True] * 49
    files[49].bytes[:] = 2
    assert files[49].size == 4 * PAGE


@scene
def a_mapping_that_begins_inside_a_page() -> None:
    """Offsets count from the mapping's own beginning."""
    file = File(4 * PAGE, offset=PAGE + 100)
    file.cut(2 * PAGE)
    assert file.bytes.sum() == PAGE - 100
    assert file.mapping.is_shared(PAGE - 100)
    assert not file.mapping.is_shared(PAGE - 99)


@scene
def two_threads_at_once() -> None:
    """Both fault in the same mapping, again and again."""
    for _ in range(20):
        file = File(64 * PAGE)
        file.cut(PAGE)
        barrier = threading.Barrier(2)
        sums: list[int] = []

        def add(file: File = file, barrier: threading.Barrier = barrier, sums: list[int] = sums) -> None:
            barrier.wait()
            sums.append(int(file.bytes.sum(dtype=np.int64)))

        threads = [threading.Thread(target=add) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sums == [PAGE, PAGE]


@scene
def a_thread_that_python_does_not_know() -> None:
    """A thread of the C library reads behind the end: memchr for what is not there, called as its function."""
    file = File()
    file.cut(PAGE)
    libc = ctypes.CDLL(None)
    thread = ctypes.c_ulong()
    libc.pthread_join.argtypes = [ctypes.c_ulong, ctypes.c_void_p]
    assert libc.pthread_create(ctypes.byref(thread), None, libc.strlen, ctypes.c_void_p(file.bytes.ctypes.data)) == 0
    length = ctypes.c_void_p()
    assert libc.pthread_join(thread, ctypes.byref(length)) == 0
    assert length.value == PAGE  # ones up to the end, and then the zero that the guard put there


def _onnxruntime(threads: int) -> None:
    import onnxruntime

    from tests.models import make_models

    file = File()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        make_models.scale(2.0, LARGE // 4).SerializeToString(), options, ["CPUExecutionProvider"]
    )
    x = file.bytes.view(np.float32).reshape(1, -1)
    x[:] = 1
    file.cut(PAGE)
    (y,) = session.run(["y"], {"x": x})
    assert y.sum() == 2 * PAGE // 4
    assert not file.mapping.is_shared(LARGE)


@scene
def onnxruntime_in_the_calling_thread() -> None:
    """A kernel reads behind the end on the thread that called it."""
    _onnxruntime(1)


@scene
def onnxruntime_in_its_own_threads() -> None:
    """Every thread of a kernel does."""
    _onnxruntime(4)


@scene
def another_guard_is_installed_in_between() -> None:
    """A later mapping puts the guard back."""
    File(PAGE)
    faulthandler.disable()
    faulthandler.enable()
    file = File()
    file.cut(0)
    assert file.bytes.sum() == 0


def _touch_memory_that_is_not_guarded() -> None:
    file = File()
    with tempfile.TemporaryFile() as other:
        other.truncate(PAGE)
        memory = mmap.mmap(other.fileno(), PAGE)
        other.truncate(0)
        print("touching", flush=True)
        print(memory[0], file.size)


@scene
def memory_that_is_not_guarded() -> None:
    """Ends the process: with faulthandler, by its trace."""
    _touch_memory_that_is_not_guarded()


@scene
def memory_that_is_not_guarded_and_faulthandler_is_later() -> None:
    """The same where faulthandler came after the guard, and the guard after it again."""
    File(PAGE)
    faulthandler.disable()
    faulthandler.enable()
    _touch_memory_that_is_not_guarded()


@scene
def a_signal_that_is_sent() -> None:
    """Ends the process too."""
    file = File()
    print("touching", flush=True)
    os.kill(os.getpid(), signal.SIGBUS)
    print("alive", file.size)


if __name__ == "__main__":
    if "--faulthandler" in sys.argv:
        faulthandler.enable()
    SCENES[sys.argv[1]]()
    print("done")
