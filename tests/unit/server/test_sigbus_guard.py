"""Mapped memory that is cut off while it is used, in processes of their own; and mappings that come and go."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.support import broken_memory
from tests.support.server_process import ROOT
from trtserve_server.shared_memory import sigbus_guard
from trtserve_server.shared_memory.mapping import Mapping

FATAL = {
    "memory_that_is_not_guarded",
    "memory_that_is_not_guarded_and_faulthandler_is_later",
    "a_signal_that_is_sent",
}

pytestmark = pytest.mark.skipif(bool(sigbus_guard.why_not()), reason=sigbus_guard.why_not())


def play(scene: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.support.broken_memory", scene, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("scene", sorted(set(broken_memory.SCENES) - FATAL))
def test_what_is_cut_off_reads_as_zeros_and_is_known_to_be(scene: str) -> None:
    played = play(scene, "--faulthandler")
    assert (played.returncode, played.stdout) == (0, "done\n"), played.stderr


@pytest.mark.parametrize("scene", sorted(FATAL))
def test_any_other_such_signal_ends_the_process_as_without_the_guard(scene: str) -> None:
    played = play(scene, "--faulthandler")
    assert (played.returncode, played.stdout) == (-signal.SIGBUS, "touching\n")
    assert "Fatal Python error: Bus error" in played.stderr
    assert f"in {scene}" in played.stderr


@pytest.mark.parametrize("scene", ["memory_that_is_not_guarded", "a_signal_that_is_sent"])
def test_it_ends_the_process_without_faulthandler_too(scene: str) -> None:
    played = play(scene)
    assert (played.returncode, played.stdout, played.stderr) == (-signal.SIGBUS, "touching\n", "")


def held() -> tuple[int, int, int]:
    """Mappings of shared memory, open files and guarded ranges of this process."""
    gc.collect()
    mapped = Path("/proc/self/maps").read_text().count("/dev/shm/")
    return mapped, len(os.listdir("/proc/self/fd")), len(sigbus_guard._ranges)


def test_a_mapping_lives_as_long_as_an_array_of_it_and_leaves_nothing() -> None:
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.truncate(100_000)
        before = held()
        mapping = Mapping(file.fileno(), 50, 10_000)
        part = mapping.bytes()[10:20].view(np.uint16)
        assert held() == (before[0] + 1, before[1], before[2] + 1)
        del mapping
        part[:] = 0x0101
        assert held() == (before[0] + 1, before[1], before[2] + 1)
        del part
        assert held() == before
        assert os.pread(file.fileno(), 12, 59) == b"\0" + b"\1" * 10 + b"\0"


def test_what_cannot_be_mapped_is_an_error_and_leaves_nothing() -> None:
    before = held()
    with pytest.raises(OSError, match="Bad file descriptor"):
        Mapping(-1, 0, 100)
    assert held() == before
