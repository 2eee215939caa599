"""Optimization profiles as text: what is read, what is refused, and that reading and writing agree."""

import pytest

from trtserve_engines.config import ConfigError
from trtserve_engines.tensorrt.profile_shapes import ProfileShapes, ShapeRange

IMAGE = ShapeRange((1, 3, 224, 224), (8, 3, 224, 224), (32, 3, 224, 224))
MASK = ShapeRange((1, 8), (8, 8), (32, 8))


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ("x=1x3x224x224:8x3x224x224:32x3x224x224", {"x": IMAGE}),
        ("x=4x4", {"x": ShapeRange((4, 4), (4, 4), (4, 4))}),
        ("x=1:8:32,mask=1x8:8x8:32x8", {"x": ShapeRange((1,), (8,), (32,)), "mask": MASK}),
        ("x=1:8:32  mask=1x8:8x8:32x8 ", {"x": ShapeRange((1,), (8,), (32,)), "mask": MASK}),
        ("scope/in.put:0=1:8:32", {"scope/in.put:0": ShapeRange((1,), (8,), (32,))}),
        ("a=b=1:8:32", {"a=b": ShapeRange((1,), (8,), (32,))}),
        ("target=-1x4:-1x8:-1x16", {"target": ShapeRange((-1, 4), (-1, 8), (-1, 16))}),
        ("x=0x4:2x4:4x4", {"x": ShapeRange((0, 4), (2, 4), (4, 4))}),
    ],
)
def test_a_profile_is_read(text, inputs):
    assert dict(ProfileShapes.parse(text).inputs) == inputs


@pytest.mark.parametrize("text", ["x=1x3:8x3:32x3", "mask=2x8:4x8:8x8 x=1:8:32", "x=4x4"])
def test_what_is_written_reads_back(text):
    assert str(ProfileShapes.parse(text)) == text


def test_the_order_of_the_inputs_does_not_matter():
    assert ProfileShapes.parse("a=1:2:3,b=4") == ProfileShapes.parse("b=4:4:4 a=1:2:3")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names no input"),
        ("x", "'x' is not NAME="),
        ("x=1x3:8x3", "has two shapes"),
        ("x=1xa:2:3", "is not NAME="),
        ("x=1:2:3:4", "is not NAME="),
        ("x=1:2:3,y", "'y' is not NAME="),
        ("x=1x3:8:32x3", "differ in their number of dimensions"),
        ("x=8x3:1x3:32x3", "has 8, 1, 32 on axis 0"),
        ("x=1x3:1x4:1x3", "has 3, 4, 3 on axis 1"),
        ("x=1:2:3,x=1:2:4", "names input 'x' twice"),
    ],
)
def test_a_profile_that_is_none_is_refused_with_what_is_wanted(text, reason):
    with pytest.raises(ConfigError, match=reason):
        ProfileShapes.parse(text)


def test_a_range_holds_what_lies_between_its_ends():
    assert IMAGE.holds((1, 3, 224, 224)) and IMAGE.holds((32, 3, 224, 224))
    assert not IMAGE.holds((33, 3, 224, 224)) and not IMAGE.holds((1, 3, 224)) and not IMAGE.holds((1, 1, 224, 224))


def test_an_input_that_is_not_named_has_no_range():
    profile = ProfileShapes.of({"x": IMAGE})
    assert profile.range_of("x") == IMAGE and profile.range_of("y") is None
