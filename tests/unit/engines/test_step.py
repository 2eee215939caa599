"""Steps in words, what is worth a line, and the wish to end."""

import pytest

from trtserve_engines.step import Cancel, Milestones, Step


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Step("checking"), "checking"),
        (Step("building", 41.6), "building 42 %"),
        (Step("building", 41.6, 29.7), "building 42 %, about 30 s left"),
    ],
)
def test_a_step_in_words(step, text):
    assert str(step) == text


def test_a_new_step_and_each_tenth_are_worth_a_line():
    steps = [Step("a"), Step("a"), Step("b", 0.0), Step("b", 9.9), Step("b", 10.0), Step("b", 35.0), Step("c", 35.0)]
    milestones = Milestones()
    assert [milestones.is_new(step) for step in steps] == [True, False, True, False, True, True, True]


def test_who_cannot_wait_for_the_wish_is_called():
    cancel, called = Cancel(), []
    with cancel.calling(lambda: called.append("inside")):
        assert called == []
        cancel.set()
        assert called == ["inside"]
    with cancel.calling(lambda: called.append("late")):
        assert called == ["inside", "late"]
    cancel.set()
    assert called == ["inside", "late"]
    assert cancel.is_set()
