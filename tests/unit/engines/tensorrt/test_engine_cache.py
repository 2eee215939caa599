"""The store of engines: hits, damage, limits, two writers, and processes that are killed at any moment."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from threading import Event, Thread

import pytest

from tests.support.small_files import small_files
from trtserve_engines.errors import DamagedEntryError, EngineCacheError
from trtserve_engines.tensorrt.cache_entry import Sidecar, plan_digest
from trtserve_engines.tensorrt.engine_cache import EngineCache
from trtserve_engines.tensorrt.engine_key import EngineKey

WAIT_S = 60
SECRET = b"0123456789abcdef"
FIELDS = {"schema": 1, "model": "m" * 64, "gpu": {"name": "A", "driver_version": [13, 0]}, "tensorrt": "10.16"}
KEY = EngineKey(FIELDS)
PLAN = bytes(range(256)) * 64


def sidecar_of(key, plan=PLAN, **fields):
    known = {"build_s": 1.5, "created": 1e9, "model_path": "/models/m.onnx", "io": ({"name": "x", "shape": [-1, 4]},)}
    return Sidecar(key.fields, plan_digest(plan), len(plan), **{**known, **fields})


def publish(cache, key=KEY, plan=PLAN, **fields):
    with cache.lock(key) as is_held:
        assert is_held
        cache.publish(key, plan, sidecar_of(key, plan, **fields))


def key_of(number):
    return EngineKey({**FIELDS, "number": number})


def names(folder):
    return sorted(os.listdir(folder))


def leftovers(cache):
    return [*names(cache.folder / "partial"), *names(cache.folder / "locks")]


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "cache")


@pytest.fixture
def entry(cache):
    publish(cache)
    return cache.folder / "engines" / KEY.digest


# ---- hits and misses ----


def test_an_empty_cache_has_nothing(cache):
    assert cache.find(KEY) is None
    assert cache.entries() == []
    assert cache.closest(KEY, "/models/m.onnx") is None


def test_what_was_published_is_found_with_all_that_was_said_of_it(cache):
    accuracy = {"outputs": [{"name": "y", "max_abs": 0.001}]}
    publish(cache, accuracy=accuracy, memory={"plan_bytes": 7})
    stored = cache.find(KEY)
    assert bytes(stored.plan) == PLAN
    assert stored.sidecar == sidecar_of(KEY, accuracy=accuracy, memory={"plan_bytes": 7})
    assert leftovers(cache) == []


def test_the_plan_is_mapped_not_read(cache, entry):
    import mmap

    assert isinstance(cache.find(KEY).plan, mmap.mmap)


def test_another_process_finds_it(cache, entry):
    assert bytes(EngineCache(cache.folder).find(KEY).plan) == PLAN


def test_publishing_again_replaces(cache, entry):
    publish(cache, plan=b"other")
    assert bytes(cache.find(KEY).plan) == b"other"
    assert len(cache.entries()) == 1


def test_files_are_the_users_alone(entry):
    assert {path.stat().st_mode & 0o777 for path in entry.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("tensorrt", "11.4.0.106", "TensorRT changed: 10.16 -> 11.4.0.106"),
        ("gpu", {"name": "B", "driver_version": [13, 0]}, "GPU changed: A -> B"),
        ("gpu", {"name": "A", "driver_version": [13, 1]}, "CUDA driver changed: 13.0 -> 13.1"),
        ("model", "n" * 64, "ONNX model changed: " + "m" * 64 + " -> " + "n" * 64),
    ],
)
def test_a_miss_says_what_changed(cache, entry, field, value, text):
    key = EngineKey({**FIELDS, field: value})
    assert cache.find(key) is None
    assert [str(change) for change in cache.closest(key, "/models/m.onnx")] == [text]


def test_the_closest_entry_is_the_most_similar_of_the_same_model_or_file(cache, entry):
    publish(cache, EngineKey({**FIELDS, "gpu": {"name": "B"}, "tensorrt": "11.4"}))
    publish(cache, EngineKey({**FIELDS, "model": "other"}), model_path="/models/other.onnx")
    wanted = EngineKey({**FIELDS, "platform": "p"})
    assert [change.field for change in cache.closest(wanted, "")] == ["platform"]
    assert cache.closest(EngineKey({**FIELDS, "model": "third"}), "/models/third.onnx") is None


# ---- damage ----


def truncate(entry):
    os.truncate(entry / "plan", len(PLAN) - 1)


def empty(entry):
    os.truncate(entry / "plan", 0)


def flip_bit(entry):
    with open(entry / "plan", "r+b") as file:
        file.seek(1000)
        byte = file.read(1)[0]
        file.seek(1000)
        file.write(bytes([byte ^ 1]))


def spoil_sidecar(entry):
    (entry / "entry.json").write_text("{")


def foreign_sidecar(entry):
    values = json.loads((entry / "entry.json").read_text())
    (entry / "entry.json").write_text(json.dumps({**values, "key": {**FIELDS, "driver": "99"}}))


def sidecar_without_field(entry):
    values = json.loads((entry / "entry.json").read_text())
    del values["plan_sha256"]
    (entry / "entry.json").write_text(json.dumps(values))


def sidecar_of_nonsense(entry):
    (entry / "entry.json").write_text("[1, 2]")


def plan_is_a_folder(entry):
    (entry / "plan").unlink()
    (entry / "plan").mkdir()


DAMAGES = [
    (truncate, "16383 bytes; 16384 were written"),
    (empty, "0 bytes; 16384 were written"),
    (flip_bit, "SHA-256 .*, not "),
    (spoil_sidecar, "not one that trtserve writes"),
    (foreign_sidecar, "belongs to another key"),
    (sidecar_without_field, "not one that trtserve writes"),
    (sidecar_of_nonsense, "not one that trtserve writes"),
    (plan_is_a_folder, "cannot be read: Is a directory"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_damaged_entry_is_never_served_and_can_be_set_aside_and_replaced(cache, entry, damage, message):
    damage(entry)
    with pytest.raises(DamagedEntryError, match=f"engine {KEY.digest[:12]}... in {cache.folder} .*{message}"):
        cache.find(KEY)
    assert cache.verify(KEY.digest)
    with cache.lock(KEY):
        cache.set_aside(KEY.digest, "why")
    assert cache.find(KEY) is None
    assert cache.damaged() == {KEY.digest: "why"}
    publish(cache)
    assert bytes(cache.find(KEY).plan) == PLAN
    assert cache.verify(KEY.digest) == ""


@pytest.mark.parametrize("missing", ["plan", "entry.json"])
def test_an_entry_without_one_of_its_files_is_a_miss_that_publishing_repairs(cache, entry, missing):
    (entry / missing).unlink()
    assert cache.find(KEY) is None
    publish(cache)
    assert bytes(cache.find(KEY).plan) == PLAN


def test_a_second_damage_of_the_same_key_takes_the_place_of_the_first(cache, entry):
    with cache.lock(KEY):
        cache.set_aside(KEY.digest, "first")
    publish(cache)
    with cache.lock(KEY):
        cache.set_aside(KEY.digest, "second")
    assert cache.damaged() == {KEY.digest: "second"}


def test_a_damaged_sidecar_is_listed_as_such(cache, entry):
    spoil_sidecar(entry)
    (listed,) = cache.entries()
    assert (listed.digest, listed.size_bytes, listed.sidecar) == (KEY.digest, len(PLAN), None)
    assert "not one that trtserve writes" in listed.problem


# ---- authentication ----


def test_with_a_secret_only_what_was_signed_with_it_is_served(tmp_path):
    signed = EngineCache(tmp_path, secret=SECRET)
    publish(signed)
    assert bytes(signed.find(KEY).plan) == PLAN
    with pytest.raises(DamagedEntryError, match="HMAC does not fit the key"):
        EngineCache(tmp_path, secret=b"another secret of length").find(KEY)
    assert EngineCache(tmp_path).find(KEY) is not None


def test_with_a_secret_what_was_not_signed_is_not_served(cache, entry):
    with pytest.raises(DamagedEntryError, match="HMAC is missing"):
        EngineCache(cache.folder, secret=SECRET).find(KEY)


def test_a_forged_plan_with_a_forged_sidecar_is_found_out(tmp_path):
    signed = EngineCache(tmp_path, secret=SECRET)
    publish(signed)
    entry = tmp_path / "engines" / KEY.digest
    (entry / "plan").write_bytes(b"evil")
    values = json.loads((entry / "entry.json").read_text())
    values |= {"plan_sha256": plan_digest(b"evil"), "plan_bytes": 4}
    (entry / "entry.json").write_text(json.dumps(values))
    with pytest.raises(DamagedEntryError, match="HMAC does not fit the key"):
        signed.find(KEY)


# ---- limits ----


def test_the_least_recently_used_go_when_the_limit_is_passed(tmp_path):
    cache = EngineCache(tmp_path, max_bytes=3 * len(PLAN))
    for number in range(3):
        publish(cache, key_of(number))
        os.utime(tmp_path / "engines" / key_of(number).digest, (number, number))
    cache.find(key_of(0))
    publish(cache, key_of(3))
    assert cache.find(key_of(1)) is None
    assert all(cache.find(key_of(number)) for number in (0, 2, 3))
    assert leftovers(cache) == []


def test_what_was_just_published_stays_even_where_it_is_larger_than_the_limit(tmp_path):
    cache = EngineCache(tmp_path, max_bytes=10)
    publish(cache, key_of(0))
    publish(cache, key_of(1))
    assert [entry.digest for entry in cache.entries()] == [key_of(1).digest]


def test_prune_by_age_and_size_gives_what_it_removed(cache):
    for number in range(4):
        publish(cache, key_of(number))
        os.utime(cache.folder / "engines" / key_of(number).digest, (number, number))
    assert cache.prune(unused_since=2) == [key_of(0).digest, key_of(1).digest]
    assert cache.prune(max_bytes=len(PLAN)) == [key_of(2).digest]
    assert cache.prune(max_bytes=0) == [key_of(3).digest]


def test_prune_removes_what_was_set_aside(cache, entry):
    with cache.lock(KEY):
        cache.set_aside(KEY.digest, "why")
    cache.prune()
    assert cache.damaged() == {}


def test_an_engine_that_someone_writes_now_is_not_removed(cache, entry):
    with cache.lock(KEY):
        assert cache.prune(max_bytes=0) == []
    assert cache.find(KEY) is not None


def test_removing_what_another_process_has_just_removed_is_no_error(cache):
    assert cache.remove(KEY.digest)
    assert leftovers(cache) == []


def test_an_engine_in_use_outlives_its_removal(cache, entry):
    stored = cache.find(KEY)
    assert cache.remove(KEY.digest)
    assert bytes(stored.plan) == PLAN


# ---- disks that are full or cannot be written ----


def test_a_full_disk_is_said_and_nothing_is_left(cache):
    told = r"engine \(16384 bytes\) cannot be kept in .* free space there"
    with small_files(4096), pytest.raises(EngineCacheError, match=told):
        publish(cache)
    assert cache.find(KEY) is None
    assert leftovers(cache) == []
    with small_files(4096):
        publish(cache, plan=b"small")
    assert bytes(cache.find(KEY).plan) == b"small"


def test_a_full_disk_leaves_the_entry_that_was_there(cache):
    publish(cache, plan=b"old")
    with small_files(4096), pytest.raises(EngineCacheError, match="cannot be kept"):
        publish(cache)
    assert bytes(cache.find(KEY).plan) == b"old"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written_serves_what_it_has_and_says_so(cache, entry):
    folders = [cache.folder / name for name in ("engines", "partial", "damaged", "locks")]
    for folder in folders:
        folder.chmod(0o500)
    try:
        reader = EngineCache(cache.folder)
        assert bytes(reader.find(KEY).plan) == PLAN
        with pytest.raises(EngineCacheError, match="cannot be made: Permission denied"):
            publish(reader)
    finally:
        for folder in folders:
            folder.chmod(0o700)


def test_a_lock_that_cannot_be_made_is_said(cache):
    (cache.folder / "locks").rmdir()
    (cache.folder / "locks").touch()
    with pytest.raises(EngineCacheError, match="the lock .* cannot be made: Not a directory"):
        publish(cache)


# ---- several processes ----

PUBLISHER = """
import sys
from pathlib import Path
from tests.unit.engines.tensorrt.test_engine_cache import KEY, PLAN, sidecar_of
from trtserve_engines.tensorrt import engine_cache

def hold(*arguments):
    print("held", flush=True)
    sys.stdin.read()

cache = engine_cache.EngineCache(Path(sys.argv[1]))
setattr(engine_cache, sys.argv[2], hold)
with cache.lock(KEY):
    cache.publish(KEY, PLAN, sidecar_of(KEY))
"""


@pytest.mark.parametrize(("stage", "is_there"), [("write_entry", False), ("sync_folder", True)])
def test_a_publisher_that_is_killed_leaves_the_entry_whole_or_absent_and_nothing_else(cache, root, stage, is_there):
    if stage == "write_entry":
        (cache.folder / "partial" / KEY.digest).mkdir()  # as if it had begun to write
    command = [sys.executable, "-c", PUBLISHER, str(cache.folder), stage]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as publisher:
        assert publisher.stdout.readline() == "held\n"
        publisher.kill()
        publisher.wait(WAIT_S)
    after = EngineCache(cache.folder)
    assert leftovers(after) == []
    assert (after.find(KEY) is not None) == is_there
    publish(after)
    assert bytes(after.find(KEY).plan) == PLAN


def test_the_work_of_a_living_process_is_not_swept_away(cache):
    with cache.lock(KEY):
        (cache.folder / "partial" / KEY.digest).mkdir()
        EngineCache(cache.folder)
        assert leftovers(cache) == [KEY.digest, KEY.digest]


def test_of_two_writers_one_publishes_and_the_other_finds(cache):
    built, found, waiting = [], [], Event()

    def second():
        with cache.lock(KEY, on_wait=waiting.set):
            stored = cache.find(KEY)
            found.append(bytes(stored.plan) if stored else built.append("second"))

    with cache.lock(KEY):
        thread = Thread(target=second)
        thread.start()
        assert waiting.wait(WAIT_S)
        cache.publish(KEY, PLAN, sidecar_of(KEY))
    thread.join(WAIT_S)
    assert (built, found) == ([], [PLAN])


def test_readers_see_whole_entries_while_writers_replace_them(cache):
    plans = [bytes([number]) * 5000 for number in range(3)]
    end, wrong = Event(), []

    def read():
        while not end.is_set():
            stored = cache.find(KEY)
            if stored and bytes(stored.plan) not in plans:
                wrong.append(stored)

    readers = [Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(10):
        for plan in plans:
            publish(cache, plan=plan)
    end.set()
    for reader in readers:
        reader.join(WAIT_S)
    assert wrong == []


def test_a_sidecar_that_says_something_else_is_not_signed():
    signed = sidecar_of(KEY).signed(SECRET)
    assert signed.is_signed(SECRET)
    assert not replace(signed, build_s=2.0).is_signed(SECRET)
