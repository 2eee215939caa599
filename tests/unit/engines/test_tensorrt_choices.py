"""The rules of the TensorRT runtime that need no GPU: profiles, buckets, memory, options, expectations."""

import dataclasses

import pytest

from trtserve_engines.config import ConfigError
from trtserve_engines.cuda.api import Memory
from trtserve_engines.errors import DeviceMemoryError
from trtserve_engines.tensorrt.memory_need import MemoryNeed, aligned, check_memory, readable
from trtserve_engines.tensorrt.profile_choice import (
    batch_buckets,
    bucket_of,
    choose_profile,
    explain_misfit,
    row_limits,
)
from trtserve_engines.tensorrt.profile_shapes import ShapeRange
from trtserve_engines.tensorrt.runtime_config import RuntimeConfig
from trtserve_engines.tensorrt.slot import Route


def rows(low, high, width=4):
    return {"x": ShapeRange((low, width), (high, width), (high, width))}


SMALL, LARGE, WIDE = rows(1, 4), rows(1, 32), rows(1, 8, 100)


@pytest.mark.parametrize(
    ("profiles", "shape", "chosen"),
    [
        ([LARGE], (1, 4), 0),
        ([LARGE], (33, 4), None),
        ([LARGE], (1, 5), None),
        ([LARGE], (1, 4, 1), None),
        ([LARGE, SMALL], (4, 4), 1),  # the tightest, wherever it stands
        ([LARGE, SMALL], (5, 4), 0),
        ([SMALL, SMALL], (2, 4), 0),  # the first of equals
        ([SMALL, LARGE, WIDE], (8, 100), 2),
        ([], (1, 4), None),
    ],
)
def test_the_tightest_profile_that_fits_is_chosen(profiles, shape, chosen):
    assert choose_profile(profiles, {"x": shape}) == chosen


def test_every_input_has_to_fit():
    profile = {**rows(1, 8), "n": ShapeRange((1,), (5,), (10,))}
    assert choose_profile([profile], {"x": (8, 4), "n": (10,)}) == 0
    assert choose_profile([profile], {"x": (8, 4), "n": (11,)}) is None


def test_a_misfit_is_explained_with_both_sides():
    text = explain_misfit([SMALL, WIDE], {"x": (9, 4)})
    assert text == "x 9x4 given; the engine was built for x 1x4:4x4:4x4 or x 1x100:8x100:8x100 (smallest:usual:largest)"


@pytest.mark.parametrize(
    ("profiles", "limits"), [([SMALL], (1, 4)), ([SMALL, LARGE], (1, 32)), ([rows(8, 8), rows(2, 4)], (2, 8))]
)
def test_rows_are_limited_by_the_profiles(profiles, limits):
    assert row_limits(profiles, ["x"]) == limits


@pytest.mark.parametrize(
    ("low", "high", "wanted", "buckets"),
    [
        (1, 1, (), (1,)),
        (1, 8, (), (1, 2, 4, 8)),
        (1, 10, (), (1, 2, 4, 8, 10)),
        (0, 3, (), (1, 2, 3)),
        (5, 5, (), (5,)),
        (3, 20, (), (4, 8, 16, 20)),
        (1, 8, (6, 3), (3, 6, 8)),
        (1, 8, (8,), (8,)),
    ],
)
def test_buckets_are_powers_of_two_or_those_wanted_and_always_the_largest(low, high, wanted, buckets):
    assert batch_buckets(low, high, wanted) == buckets


@pytest.mark.parametrize("bucket", [9, 1])
def test_a_bucket_outside_the_profiles_is_refused(bucket):
    with pytest.raises(ConfigError, match=rf"batch_buckets has {bucket}, but the engine was built for 2 to 8 rows"):
        batch_buckets(2, 8, (bucket,))


@pytest.mark.parametrize(("given", "bucket"), [(0, 1), (1, 1), (3, 4), (8, 8), (9, None)])
def test_rows_go_into_the_next_bucket(given, bucket):
    assert bucket_of((1, 4, 8), given) == bucket


GIB = 1 << 30
NEEDS = [MemoryNeed("weights", 2 * GIB), MemoryNeed("scratch memory of 2 instances", GIB)]


@pytest.mark.parametrize(("free", "reserve", "fits"), [(4, 1, True), (4, 2, False), (3, 0, True), (2, 0, False)])
def test_what_is_needed_and_the_reserve_must_be_free(free, reserve, fits):
    memory = Memory(free * GIB, 16 * GIB)
    if fits:
        check_memory(NEEDS, memory, reserve * GIB, "gpu:0")
        return
    with pytest.raises(DeviceMemoryError, match="gpu:0 has") as caught:
        check_memory(NEEDS, memory, reserve * GIB, "gpu:0")
    text = str(caught.value)
    assert f"{free}.0 GiB of 16.0 GiB free, but 3.0 GiB are needed" in text
    assert "(weights 2.0 GiB, scratch memory of 2 instances 1.0 GiB)" in text
    assert "Use fewer instances" in text


def test_sizes_are_readable():
    assert [readable(size) for size in (0, 1023, 1024, 3 << 19, 5 * GIB)] == [
        *("0 bytes", "1023 bytes", "1.0 KiB", "1.5 MiB", "5.0 GiB")
    ]
    assert [aligned(size) for size in (0, 1, 256, 257)] == [0, 256, 256, 512]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pipeline_depth": 0}, "pipeline_depth = 0; it must be at least 1"),
        ({"pipeline_depth": 5}, "pipeline_depth = 5; wanted is 1 to 4"),
        ({"wait_timeout_s": 0.0}, "wait_timeout_s = 0.0; it must be above 0"),
        ({"wait_timeout_s": float("nan")}, "wait_timeout_s = nan; it must be above 0"),
        ({"batch_buckets": (4, 0)}, r"batch_buckets = \[4, 0\]; each must be at least 1"),
        ({"memory_reserve_bytes": -1}, "memory_reserve_bytes = -1; it must be at least 0"),
    ],
)
def test_options_check_themselves(options, message):
    with pytest.raises(ConfigError, match=message):
        RuntimeConfig(**options)


def test_every_option_has_its_help():
    assert all(field.metadata["help"] for field in dataclasses.fields(RuntimeConfig))


def test_expectations_fall_at_once_and_rise_slowly():
    route = Route((), (), None, {}, None, (), {})
    seen = []
    for seconds in (0.010, 0.002, 0.010, 0.010, 0.001):
        route.note_wait(seconds)
        seen.append(route.expected_s)
    assert seen == pytest.approx([0.010, 0.002, 0.0025, 0.003125, 0.001])
