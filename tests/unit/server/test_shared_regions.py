"""Regions of shared memory: every bound, every kind of key, what shrinks, and what is given back when."""

from __future__ import annotations

import gc
import mmap
import os
import socket
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.support.shared_object import SharedObject
from trtserve_engines.staging import gather
from trtserve_server.errors import InvalidRequest, RegionExists, RegionLimit, RegionNotFound
from trtserve_server.shared_memory import sigbus_guard
from trtserve_server.shared_memory.regions import Regions, Window
from trtserve_server.shared_memory.system import SystemRegion, open_system_region
from trtserve_server.shared_memory.tensor import SharedPlace, SharedTensor


@pytest.fixture(autouse=True, params=["mapped", "copied"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything holds where regions are mapped, and where that cannot be guarded."""
    way: str = request.param
    if way == "copied":
        monkeypatch.setattr(sigbus_guard, "MACHINES", ("another",))
    elif reason := sigbus_guard.why_not():
        pytest.skip(reason)
    return way


@pytest.fixture
def shared() -> Iterator[SharedObject]:
    made = SharedObject(100)
    yield made
    made.close()


def opened(shared: SharedObject, offset: int = 0, byte_size: int = 100, name: str = "r") -> SystemRegion:
    return open_system_region(name, shared.key, offset, byte_size, prefix="")


def descriptors(path: str) -> int:
    """How many descriptors of this process lead to `path`, beside that of the test's own mapping."""
    gc.collect()
    links = []
    for number in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # the one that lists them
            continue
    return links.count(path) - 1


def test_what_was_written_is_read(shared: SharedObject) -> None:
    region = opened(shared, offset=10, byte_size=50)
    region.write(5, memoryview(b"abc"))
    assert shared.memory[15:18] == b"abc"
    shared.memory[20:24] = b"wxyz"
    target = bytearray(4)
    region.read(10, memoryview(target))
    assert target == b"wxyz"


@pytest.mark.parametrize(
    ("offset", "byte_size", "words"),
    [
        (0, 101, "end at byte 101; the object has 100"),
        (1, 100, "end at byte 101; the object has 100"),
        (100, 1, "end at byte 101; the object has 100"),
        (0, 0, "wanted is a part of the object, 1 or more"),
        (2**64 - 1, 1, "wanted is a part of the object"),
        (1, 2**64 - 1, "wanted is a part of the object"),
        (2**62, 2**62, "wanted is a part of the object"),
    ],
)
def test_a_region_must_lie_inside_its_object(shared: SharedObject, offset: int, byte_size: int, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        opened(shared, offset, byte_size)
    assert descriptors(shared.path) == 0


@pytest.mark.parametrize("key", ["", "/", ".", "..", "/..", "a/b", "/../etc/passwd", "//a", "a\0b", "x" * 256])
def test_a_key_is_a_name_and_no_path(key: str) -> None:
    with pytest.raises(InvalidRequest, match="is not the name of a shared memory object"):
        open_system_region("r", key, 0, 1, prefix="")


@pytest.mark.parametrize(("prefix", "taken"), [("", True), ("trtserve-", True), ("/trtserve-", True), ("other", False)])
def test_keys_are_confined_to_the_prefix(shared: SharedObject, prefix: str, taken: bool) -> None:
    if taken:
        assert open_system_region("r", shared.key, 0, 1, prefix=prefix).byte_size == 1
        assert open_system_region("r", shared.key[1:], 0, 1, prefix=prefix).byte_size == 1
    else:
        with pytest.raises(InvalidRequest, match="keys must begin with 'other'"):
            open_system_region("r", shared.key, 0, 1, prefix=prefix)


def test_an_object_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(RegionNotFound, match="create it first"):
        open_system_region("r", "/trtserve-test-nobody", 0, 1, prefix="")


def bind(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)


@pytest.mark.parametrize(
    ("make", "remove"),
    [
        (lambda path: os.symlink("/etc/passwd", path), os.unlink),
        (os.mkfifo, os.unlink),
        (os.mkdir, os.rmdir),
        (bind, os.unlink),
    ],
    ids=["link", "pipe", "folder", "socket"],
)
def test_what_is_no_shared_memory_object_is_refused(
    shared: SharedObject, make: Callable[[str], None], remove: Callable[[str], None]
) -> None:
    make(f"{shared.path}-other")
    try:
        with pytest.raises(InvalidRequest, match="cannot be opened|is not a shared memory object"):
            open_system_region("r", f"{shared.key}-other", 0, 1, prefix="")
    finally:
        remove(f"{shared.path}-other")


def test_reading_what_was_cut_off_is_an_error_and_no_signal(shared: SharedObject) -> None:
    region = opened(shared)
    shared.truncate(50)
    with pytest.raises(InvalidRequest, match="has shrunk since it was registered: its object has 50 bytes now, 100"):
        region.read(40, memoryview(bytearray(20)))
    target = bytearray(20)
    region.read(30, memoryview(target))
    assert target == bytes(20)


def test_writing_to_what_was_cut_off_is_an_error_and_does_not_make_it_longer(shared: SharedObject) -> None:
    region = opened(shared)
    shared.truncate(50)
    with pytest.raises(InvalidRequest, match="has shrunk"):
        region.write(40, memoryview(bytes(20)))
    assert os.stat(shared.path).st_size == 50


def test_a_region_outlives_the_name_of_its_object(shared: SharedObject) -> None:
    region = opened(shared)
    os.unlink(shared.path)
    region.write(0, memoryview(b"abc"))
    assert shared.memory[:3] == b"abc"


def test_names_are_unique_until_they_are_removed(shared: SharedObject) -> None:
    regions = Regions()
    regions.add(opened(shared))
    with pytest.raises(RegionExists, match="'r' is registered already"):
        regions.add(opened(shared))
    with pytest.raises(InvalidRequest, match="no name"):
        regions.check_free("")
    regions.remove("r", SystemRegion)
    regions.add(opened(shared))
    regions.add(opened(shared, name="s"))
    assert [region.name for region in regions.of_kind(SystemRegion)] == ["r", "s"]
    regions.remove("nobody", SystemRegion)
    regions.remove("", SystemRegion)
    assert list(regions.of_kind(SystemRegion)) == []


def test_no_more_regions_than_the_limit(shared: SharedObject) -> None:
    regions = Regions(limit=2)
    regions.add(opened(shared, name="1"))
    regions.add(opened(shared, name="2"))
    with pytest.raises(RegionLimit, match="2 shared memory regions are registered"):
        regions.add(opened(shared, name="3"))


@pytest.mark.parametrize(("offset", "size", "inside"), [(0, 60, True), (59, 1, True), (60, 0, True), (1, 60, False)])
def test_a_window_must_lie_inside_its_region(shared: SharedObject, offset: int, size: int, inside: bool) -> None:
    regions = Regions()
    regions.add(opened(shared, 10, 60))
    if inside:
        assert regions.window("r", offset, size).size == size
    else:
        with pytest.raises(InvalidRequest, match="60 bytes at offset 1 .* end at byte 61; the region ends at 60"):
            regions.window("r", offset, size)
    with pytest.raises(RegionNotFound, match="'q' is registered"):
        regions.window("q", 0, 1)


def test_nothing_is_written_behind_a_window(shared: SharedObject) -> None:
    window = Window(opened(shared), 10, 4)
    with pytest.raises(InvalidRequest, match="5 bytes are to be written to the 4 .* of at least 5"):
        window.write(bytes(5))
    window.write(b"abcd")
    assert shared.memory[9:15] == b"\0abcd\0"


def test_the_descriptor_is_closed_when_nothing_uses_the_region_any_more(shared: SharedObject) -> None:
    regions = Regions()
    regions.add(opened(shared))
    window = regions.window("r", 0, 4)
    regions.remove("r", SystemRegion)
    assert descriptors(shared.path) == 1
    window.write(b"abcd")
    del window
    assert descriptors(shared.path) == 0


def test_a_tensor_is_read_to_where_the_engine_wants_it(shared: SharedObject) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    shared.put(array, 8)
    tensor = SharedTensor(Window(opened(shared), 8, 24), array.dtype, (2, 3))
    staged = np.full((4, 3), -1, np.float32)
    gather(staged, [{"x": array[:1]}, {"x": tensor}, {"x": array[1:]}], "x")
    np.testing.assert_array_equal(staged, [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]])
    np.testing.assert_array_equal(np.asarray(tensor), array)
    assert (len(tensor), tensor.problem()) == (2, None)


def test_a_tensor_that_cannot_be_read_is_zeros_and_says_why_while_the_rows_beside_it_are_read(
    shared: SharedObject,
) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = SharedTensor(Window(opened(shared), 0, 24), array.dtype, (2, 3))
    shared.truncate(10)
    staged = np.full((3, 3), -1, np.float32)
    gather(staged, [{"x": tensor}, {"x": array[1:]}], "x")
    np.testing.assert_array_equal(staged, [[0, 0, 0], [0, 0, 0], [3, 4, 5]])
    assert "has shrunk" in str(tensor.problem())


def test_a_scalar_and_an_empty_tensor_are_read(shared: SharedObject) -> None:
    shared.put(np.array(7.0, np.float32))
    region = opened(shared)
    scalar = SharedTensor(Window(region, 0, 4), np.dtype(np.float32), ())
    empty = SharedTensor(Window(region, 0, 0), np.dtype(np.float32), (0, 3))
    assert np.asarray(scalar) == 7.0
    assert np.asarray(empty).shape == (0, 3)


def test_a_region_says_why_it_is_not_mapped(shared: SharedObject, way: str) -> None:
    assert (
        opened(shared).why_copied
        == {
            "mapped": "",
            "copied": "memory can be guarded on Linux on another only",
        }[way]
    )


def test_windows_overlap_where_a_byte_lies_in_both(shared: SharedObject) -> None:
    one = Window(opened(shared, 10, 50), 0, 20)  # bytes 10 to 30 of the object
    other_region = opened(shared, 0, 100, "s")
    assert [one.overlaps(Window(other_region, *place)) for place in [(0, 10), (0, 11), (29, 1), (30, 1)]] == [
        False,
        True,
        True,
        False,
    ]
    other = SharedObject(100)
    assert not one.overlaps(Window(opened(other), 10, 20))
    other.close()


def test_a_tensor_lies_where_its_region_is_mapped(shared: SharedObject, way: str) -> None:
    tensor = SharedTensor(Window(opened(shared, 4, 60), 12, 24), np.dtype(np.float32), (2, 3))
    there = tensor.in_place()
    if way == "copied":
        assert there is None
        return
    assert there is not None
    array, address = there
    assert address == array.ctypes.data
    assert (array.dtype, array.shape) == (np.float32, (2, 3))
    shared.put(np.arange(6, dtype=np.float32), 16)
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensor.problem() is None
    shared.truncate(50)
    assert tensor.problem() is None  # its bytes are all there
    shared.truncate(39)
    assert "its object has 39 bytes now" in str(tensor.problem())
    assert tensor.in_place() is None


def test_a_place_is_where_its_region_is_mapped_and_has_room(shared: SharedObject, way: str) -> None:
    place = SharedPlace(Window(opened(shared), 16, 20))
    assert place.array(np.dtype(np.float32), (2, 3)) is None
    there = place.array(np.dtype(np.float32), (1, 5))
    shared.truncate(20)
    if way == "copied":
        assert there is None and place.problem() is None
        return
    assert there is not None
    there.array[...] = 7  # to where nothing is any more, but in the object's last page
    assert "has shrunk" in str(place.problem())
    assert os.stat(shared.path).st_size == 20


def test_memory_that_was_away_while_it_was_used_is_known_and_copied_from_then_on(way: str) -> None:
    shared = SharedObject(3 * mmap.PAGESIZE)
    region = opened(shared, 0, shared.size)
    first, last = (SharedTensor(Window(region, number * mmap.PAGESIZE, 4), np.dtype(np.int32), ()) for number in (0, 2))
    found = [tensor.in_place() for tensor in (first, last)]
    shared.truncate(mmap.PAGESIZE)
    assert [there.array.tolist() for there in found if there is not None] == ([0, 0] if way == "mapped" else [])
    shared.truncate(shared.size)
    assert first.problem() is None
    if way == "mapped":
        assert "was cut off while the request used it" in str(last.problem())
    shared.put(np.array(7, np.int32), 2 * mmap.PAGESIZE)
    again = SharedTensor(last.window, last.dtype, last.shape)
    assert again.in_place() is None
    assert np.asarray(again) == 7
    assert again.problem() is None
    shared.close()


def test_a_region_knows_what_was_made_in_it(shared: SharedObject, way: str) -> None:
    region, other = opened(shared), opened(shared, name="s")
    there = SharedPlace(Window(region, 16, 20)).array(np.dtype(np.float32), (1, 5))
    if there is None:
        assert way == "copied"
        return
    for array in (there.array, there.array.reshape(5)):
        assert region.holds(array) and not other.holds(array)
    assert not region.holds(there.array.copy())


def test_a_window_is_looked_at_in_one_form_after_another(shared: SharedObject, way: str) -> None:
    window = Window(opened(shared), 16, 24)
    shared.put(np.arange(6, dtype=np.float32), 16)
    for dtype, shape in [("f4", (1, 6)), ("f4", (1, 6)), ("f4", (2, 3)), ("i4", (2, 3)), ("f4", (5,))]:
        there = window.array(np.dtype(dtype), shape)
        assert (there is None) == (way == "copied")
        if there is not None:
            expected = np.arange(6, dtype=np.float32).view(dtype)[: np.prod(shape)].reshape(shape)
            np.testing.assert_array_equal(there.array, expected)
            assert there.address == there.array.ctypes.data
    shared.truncate(30)
    assert window.array(np.dtype("f4"), (5,)) is None


def test_a_file_of_more_than_there_are_addresses_for_is_copied(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(sigbus_guard, "MOST_BYTES", 3 * mmap.PAGESIZE)
    shared = SharedObject(2 * mmap.PAGESIZE)
    kept = [opened(shared, 0, shared.size, name) for name in "12"]
    assert [not region.why_copied for region in kept] == [way == "mapped", False]
    shared.memory[5] = 9
    target = bytearray(1)
    kept[1].read(5, memoryview(target))
    assert target == bytes([9])
    shared.close()
