"""GPU use by a nvidia-smi that a script plays, and none where there is no such program."""

import os
import sys

import pytest

from trtserve_client.load.gpu import GpuUse, GpuWatch

SAYS = """#!{python}
import sys, time
assert "--query-gpu=index,utilization.gpu,memory.used" in sys.argv
print({lines!r}, end="", flush=True)
time.sleep({seconds})
"""


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Puts a nvidia-smi that writes these lines, and stays or ends, before all others."""

    def make(lines, *, stays=True):
        program = tmp_path / "nvidia-smi"
        program.write_text(SAYS.format(python=sys.executable, lines=lines, seconds=600 if stays else 0))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return make


@pytest.mark.parametrize(
    ("lines", "use"),
    [
        ("0, 40, 1000\n1, 70, 24\n", GpuUse(0.7, 1024 << 20)),
        ("0, [N/A], 1000\n", GpuUse(0.0, 1000 << 20)),
        ("NVIDIA-SMI has failed because it could not communicate with the driver\n", GpuUse()),
        ("", GpuUse()),
    ],
)
def test_what_it_says_last_counts(smi, lines, use):
    smi(lines, stays=False)
    with GpuWatch() as watch:
        watch.wait_until_ended()
        assert watch.use() == use


def test_without_the_program_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with GpuWatch() as watch:
        assert watch.use() == GpuUse()


def test_the_program_ends_with_the_watch(smi):
    smi("0, 40, 1000\n")
    with GpuWatch() as watch:
        process = watch.process
        assert process.poll() is None
        assert watch.use() == GpuUse(0.4, 1000 << 20)
    assert process.poll() is not None
