"""What is in the key of a build: everything that changes the plan, nothing that does not."""

from dataclasses import replace

import pytest

from trtserve_engines.config import ConfigError
from trtserve_engines.device import GpuIdentity
from trtserve_engines.tensorrt.build_config import NOT_IN_KEY, BuildConfig
from trtserve_engines.tensorrt.build_key import engine_key

GPU = GpuIdentity("NVIDIA L4", (8, 9), 58, 24 << 30, (13, 0))


def key_of(config=None, gpu=GPU, model="m", version="10.16.1.11", recipe=None):
    return engine_key(model, config or BuildConfig(), gpu, version, recipe or {})


def test_the_same_build_has_the_same_key():
    assert key_of().digest == key_of().digest


@pytest.mark.parametrize(
    "other",
    [
        {"model": "n"},
        {"version": "10.16.1.12"},
        {"recipe": {"tool": "x", "version": "1"}},
        {"gpu": replace(GPU, name="NVIDIA L40")},
        {"gpu": replace(GPU, compute_capability=(9, 0))},
        {"gpu": replace(GPU, sm_count=29)},
        {"gpu": replace(GPU, memory_bytes=12 << 30)},
        {"gpu": replace(GPU, driver_version=(13, 1))},
        {"config": BuildConfig(tf32=False)},
        {"config": BuildConfig(profiles=("x=1:8:32",))},
        {"config": BuildConfig(precision="fp16")},
        {"config": BuildConfig(optimization_level=5)},
        {"config": BuildConfig(refit="all")},
    ],
)
def test_whatever_changes_the_plan_changes_the_key(other):
    assert key_of(**other).digest != key_of().digest


@pytest.mark.parametrize(
    "other", [{"verbosity": "verbose"}, {"timing_cache": False}, {"builder_threads": 2}, {"max_batch_size": 7}]
)
def test_what_does_not_change_the_plan_does_not_change_the_key(other):
    assert set(other) <= NOT_IN_KEY
    assert key_of(BuildConfig(**other)).digest == key_of().digest


def test_plugins_and_calibration_count_by_their_bytes_not_their_paths(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        (folder / "plugin.so").write_bytes(b"code")
        (folder / "samples.npz").write_bytes(b"samples")

    def key_in(folder):
        plugins, samples = (str(folder / "plugin.so"),), str(folder / "samples.npz")
        return key_of(BuildConfig(plugins=plugins, calibration=samples, precision="int8")).digest

    assert key_in(first) == key_in(second)
    for name in ("plugin.so", "samples.npz"):
        (second / name).write_bytes(b"other " + name.encode())
        assert key_in(first) != key_in(second)
        (second / name).write_bytes((first / name).read_bytes())


def test_a_plugin_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"plugins: '/none/x\.so' cannot be read: No such file"):
        key_of(BuildConfig(plugins=("/none/x.so",)))


def test_two_plugins_of_one_name_are_refused(tmp_path):
    (tmp_path / "x.so").touch()
    with pytest.raises(ConfigError, match="plugins has two libraries called 'x.so'"):
        key_of(BuildConfig(plugins=(str(tmp_path / "x.so"), str(tmp_path / "x.so"))))
