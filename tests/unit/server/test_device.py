"""What models on one device share: turns that are fair by time, a limit on what runs at once, and cores."""

import pytest

from tests.support.manual_reactor import ManualReactor
from trtserve_server.scheduling.device import Device, Share


class Model:
    """Wants to run for ever, `instances` batches at a time of `seconds` each."""

    def __init__(self, device, seconds, instances=1, *, threads=0):
        self.device, self.seconds, self.threads = device, seconds, threads
        self.share = Share(self.dispatch)
        self.idle = instances
        self.running = []  # when each ends
        self.used_s = 0.0

    def dispatch(self):
        while self.idle and self.device.may_run(self.share):
            self.idle -= 1
            self.device.start(self.share, self.threads)
            self.running.append(self.device._reactor.now() + self.seconds)
        self.device.settle()

    def finish(self, end):
        self.running.remove(end)
        self.idle += 1
        self.used_s += self.seconds
        self.device.end(self.share, self.threads, self.seconds)
        self.dispatch()


def simulate(models, until):
    reactor = models[0].device._reactor
    for model in models:
        model.dispatch()
    most = 0
    while reactor.time < until:
        reactor.run()
        most = max(most, models[0].device.running)
        end, model = min(
            ((end, model) for model in models for end in model.running), key=lambda item: (item[0], id(item[1]))
        )
        reactor.time = end
        model.finish(end)
    return most


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize(("quick", "slow"), [(1.0, 1.0), (1.0, 10.0), (0.1, 7.0)])
def test_models_get_equal_time_whatever_their_runs_and_instances(limit, quick, slow):
    device = Device("d", ManualReactor(), max_running=limit)
    models = [Model(device, quick, instances=4), Model(device, slow, instances=4)]
    assert simulate(models, until=1000.0) == limit
    used = [model.used_s for model in models]
    assert used[0] == pytest.approx(used[1], abs=2 * limit * slow)
    assert sum(used) == pytest.approx(1000.0 * limit, rel=0.05)


def test_without_a_limit_everything_runs():
    device = Device("d", ManualReactor())
    models = [Model(device, 1.0, instances=3), Model(device, 2.0, instances=2)]
    assert simulate(models, until=10.0) == 5


def test_a_model_that_was_idle_has_no_claim_to_the_past():
    device = Device("d", ManualReactor(), max_running=1)
    busy, late = Model(device, 1.0), Model(device, 1.0)
    simulate([busy], until=100.0)
    before = busy.used_s
    simulate([busy, late], until=200.0)
    assert busy.used_s - before == pytest.approx(50, abs=3)


def test_neither_has_one_whose_runs_were_over_before_they_were_counted_in():
    device = Device("d", ManualReactor(), max_running=1)
    busy, quick = Model(device, 1.0), Share(lambda: None)
    simulate([busy], until=100.0)
    device.used(quick, 1, 0.25)
    assert quick.used_s == pytest.approx(busy.share.used_s, abs=1.5)
    late = Share(lambda: None)
    device.used(quick, 1, 50.0)
    device.used(quick, 1, 0.25)
    device.start(late, 0)
    assert late.used_s == pytest.approx(150, abs=2)  # as much as who has used most


def test_a_model_that_no_longer_wants_its_turn_lets_the_next_one_go():
    reactor = ManualReactor()
    device = Device("d", reactor, max_running=1)
    first, gone, next_one = Model(device, 1.0), Model(device, 1.0), Model(device, 1.0)
    for model in (first, gone, next_one):
        model.dispatch()
    gone.idle = 0
    first.idle = 0
    device.end(first.share, 0, 1.0)
    reactor.run()
    assert next_one.running


@pytest.mark.parametrize(
    ("cores", "busy", "choices", "threads"),
    [
        (8, 8, (1, 2, 4, 8), 1),
        (8, 1, (1, 2, 4, 8), 4),
        (8, 5, (1, 2, 4, 8), 2),
        (8, 7, (1, 2, 4, 8), 1),
        (2, 0, (1, 2), 2),
        (2, 1, (1, 2), 1),
        (2, 9, (1, 2), 1),
    ],
)
def test_a_run_beside_another_gets_cores_that_are_free(cores, busy, choices, threads):
    device = Device("cpu", ManualReactor(), cores=cores)
    device.start(Share(lambda: None), busy)
    assert device.threads(choices) == threads


def crowd_of(device, size):
    share = Share(lambda: None)
    for _ in range(size):
        device.start(share, 0)
    for _ in range(size):
        device.end(share, 0, 1.0)


@pytest.mark.parametrize(("crowd", "threads"), [(1, 8), (2, 4), (3, 2), (4, 2), (8, 1), (99, 1)])
def test_after_a_crowd_a_run_gets_the_part_that_it_would_have_had_in_it(crowd, threads):
    device = Device("cpu", ManualReactor(), cores=8)
    crowd_of(device, crowd)
    assert device.threads((1, 2, 4, 8)) == threads


def test_a_lone_run_gets_all_cores_again_when_the_crowd_is_gone():
    device = Device("cpu", ManualReactor(), cores=2)
    crowd_of(device, 2)
    given = []
    for _ in range(20):
        given.append(device.threads((1, 2)))
        crowd_of(device, 1)
    assert given == sorted(given)
    assert (given[0], given[-1]) == (1, 2)
