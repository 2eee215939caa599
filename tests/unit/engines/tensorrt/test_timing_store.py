"""Timing caches on disk: one per TensorRT, GPU and driver, merged, and never a reason to fail."""

import os
from dataclasses import replace

import pytest

from tests.support.scripted_toolchain import GPU
from trtserve_engines.errors import EngineError
from trtserve_engines.tensorrt.timing_store import TimingStore


def joined(others, new):
    return others + b"+" + new


@pytest.fixture
def store(tmp_path):
    return TimingStore(tmp_path / "timings", "10.16", GPU)


def test_nothing_is_known_at_first(store):
    assert store.load() == b""


def test_what_a_build_learned_is_there_for_the_next(store, tmp_path):
    store.merge(b"", b"one", joined)
    assert TimingStore(tmp_path / "timings", "10.16", GPU).load() == b"one"
    store.merge(b"one", b"one two", joined)
    assert store.load() == b"one two"


def test_what_others_learned_meanwhile_is_kept(store):
    store.merge(b"", b"theirs", joined)
    store.merge(b"", b"ours", joined)
    assert store.load() == b"theirs+ours"


@pytest.mark.parametrize(
    ("version", "gpu"),
    [("11.4", GPU), ("10.16", replace(GPU, name="A10")), ("10.16", replace(GPU, driver_version=(12, 8)))],
)
def test_other_versions_gpus_and_drivers_have_their_own(store, tmp_path, version, gpu):
    store.merge(b"", b"one", joined)
    assert TimingStore(tmp_path / "timings", version, gpu).load() == b""


def test_a_build_that_learned_nothing_writes_nothing(store, tmp_path):
    store.merge(b"", b"", joined)
    store.merge(b"x", b"x", joined)
    assert not (tmp_path / "timings").exists()


def test_timings_that_do_not_fit_together_are_left_aside(store, caplog):
    def refuse(others, new):
        raise EngineError("they are from different devices")

    store.merge(b"", b"one", refuse)
    store.merge(b"", b"two", refuse)
    assert store.load() == b"one"
    assert "they are from different devices" in caplog.text


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path, caplog):
    (tmp_path / "timings").touch()
    TimingStore(tmp_path / "timings", "10.16", GPU).merge(b"", b"one", joined)
    assert "were not kept" in caplog.text


def test_nothing_else_is_left_behind(store, tmp_path):
    store.merge(b"", b"one", joined)
    store.merge(b"", b"two", joined)
    assert len(os.listdir(tmp_path / "timings")) == 1
