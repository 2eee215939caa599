"""Which instance gets the next batch: one on the least loaded device, an idle one before one that has work."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.support.manual_reactor import ManualReactor
from trtserve_server.scheduling.device import Device, Share
from trtserve_server.scheduling.pool import Pool


@dataclass(eq=False)
class Instance:
    """What the pool reads of an instance."""

    device: Device
    capacity: int = 1
    idle_since: float = 0.0


@pytest.fixture
def gpus() -> tuple[Device, Device]:
    reactor = ManualReactor()
    return Device("gpu:0", reactor), Device("gpu:1", reactor)


def pool_of(*instances: Instance) -> Pool:
    pool = Pool(lambda: None)
    for instance in instances:
        pool.add(instance, 0.0)
    return pool


def take(pool: Pool, count: int) -> list[str]:
    """The devices that the next batches go to."""
    found = []
    for _ in range(count):
        instance = pool.find()
        assert instance is not None
        pool.start(instance)
        found.append(instance.device.name)
    return found


def test_batches_go_to_the_gpus_in_turn(gpus):
    pool = pool_of(*(Instance(gpu) for gpu in gpus for _ in range(2)))
    first = take(pool, 2)
    assert sorted(first) == ["gpu:0", "gpu:1"]
    assert sorted(take(pool, 2)) == ["gpu:0", "gpu:1"]
    assert pool.find() is None


def test_what_other_models_run_counts_too(gpus):
    share = Share(lambda: None)
    for _ in range(2):
        gpus[0].start(share, 0)
    pool = pool_of(*(Instance(gpu) for gpu in gpus for _ in range(3)))
    assert take(pool, 2) == ["gpu:1", "gpu:1"]
    assert sorted(take(pool, 2)) == ["gpu:0", "gpu:1"]


def test_an_idle_instance_on_a_loaded_gpu_comes_before_one_that_has_work(gpus):
    share = Share(lambda: None)
    for _ in range(5):
        gpus[0].start(share, 0)
    pool = pool_of(Instance(gpus[0], capacity=2), Instance(gpus[1], capacity=2))
    assert take(pool, 4) == ["gpu:1", "gpu:0", "gpu:1", "gpu:0"]
    assert pool.find() is None


def test_a_gpu_that_ends_a_batch_is_the_next(gpus):
    instances = [Instance(gpu) for gpu in gpus]
    pool = pool_of(*instances)
    take(pool, 2)
    pool.end(instances[1], 0, 1.0, 1.0)
    assert take(pool, 1) == ["gpu:1"]
