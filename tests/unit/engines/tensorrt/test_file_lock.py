"""The lock through a file: one holder, waiting, giving up, and holders that die."""

import os
import subprocess
import sys
from threading import Event, Thread

from trtserve_engines.tensorrt.file_lock import held, held_if_free

WAIT_S = 60
HOLDER = """
import sys
from pathlib import Path
from trtserve_engines.tensorrt.file_lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_holder_at_a_time_even_among_threads(tmp_path):
    with held(tmp_path / "lock") as first, held_if_free(tmp_path / "lock") as second:
        assert (first, second) == (True, False)


def test_nothing_is_left_behind(tmp_path):
    with held(tmp_path / "lock"):
        assert os.listdir(tmp_path) == ["lock"]
    assert os.listdir(tmp_path) == []


def test_the_one_who_waits_is_told_once_and_then_holds(tmp_path):
    waits, got = [], []
    waiting = Event()

    def wait():
        with held(tmp_path / "lock", on_wait=lambda: (waits.append(1), waiting.set())) as is_held:
            got.append(is_held)

    with held(tmp_path / "lock"):
        thread = Thread(target=wait)
        thread.start()
        assert waiting.wait(WAIT_S)
        assert got == []
    thread.join(WAIT_S)
    assert (waits, got) == ([1], [True])


def test_waiting_can_be_given_up(tmp_path):
    cancel = Event()
    with held(tmp_path / "lock"), held(tmp_path / "lock", cancel, cancel.set) as second:
        assert not second


def test_a_holder_that_is_killed_frees_it(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with held_if_free(tmp_path / "lock") as is_held:
            assert not is_held
        holder.kill()
        holder.wait(WAIT_S)
        with held(tmp_path / "lock") as is_held:
            assert is_held
    assert os.listdir(tmp_path) == []


def test_many_threads_exclude_each_other_while_the_file_comes_and_goes(tmp_path):
    inside, most = [0], [0]

    def work():
        for _ in range(5):
            with held(tmp_path / "lock"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert most == [1]
    assert os.listdir(tmp_path) == []
