"""Nested phases as one fraction; the time left from the pace so far."""

import pytest

from trtserve_engines.tensorrt.progress import ProgressTree


def told(*events):
    tree = ProgressTree(now=0.0)
    for name, *arguments in events:
        getattr(tree, name)(*arguments)
    return tree


ROOT = ("phase_start", "root", None, 4)
CHILD = ("phase_start", "child", "root", 2)


@pytest.mark.parametrize(
    ("events", "fraction"),
    [
        ([ROOT], 0),
        ([ROOT, ("step_complete", "root", 0)], 0.25),
        ([ROOT, CHILD, ("step_complete", "child", 0)], 0.125),
        ([ROOT, CHILD, ("step_complete", "child", 1), ("phase_finish", "child")], 0.25),
        ([ROOT, CHILD, ("phase_finish", "child"), ("step_complete", "root", 0)], 0.25),
        ([ROOT, ("step_complete", "root", 2), CHILD, ("step_complete", "child", 0)], 0.875),
        ([ROOT, ("step_complete", "root", 3), ("phase_finish", "root")], 1),
        ([ROOT, ("phase_finish", "root")], 1),
        ([ROOT, ("step_complete", "root", 9)], 1),
        ([("phase_start", "empty", None, 0), ("phase_finish", "empty")], 1),
        ([("step_complete", "unknown", 0), ("phase_finish", "unknown")], 0),
    ],
)
def test_phases_make_one_fraction(events, fraction):
    assert told(*events).at(1.0).fraction == pytest.approx(fraction)


def test_it_never_goes_back():
    tree = told(ROOT, ("step_complete", "root", 2))
    assert tree.at(1.0).fraction == 0.75
    tree.phase_start("second root", None, 10)
    tree.step_complete("second root", 0)
    assert tree.at(1.0).fraction == 0.75


def test_time_left_follows_from_the_pace():
    progress = told(ROOT, ("step_complete", "root", 0)).at(10.0)
    assert progress.elapsed_s == 10 and progress.remaining_s == pytest.approx(30)
    assert str(progress) == "25% root, about 30 s left"


def test_without_a_pace_no_time_left_is_told():
    assert told(ROOT).at(10.0).remaining_s is None
    assert str(told(ROOT).at(10.0)) == "0% root"
