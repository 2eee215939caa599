"""Images to tensors: the layout read from a shape, the pixels' way into it, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from trtserve_client import InputError, TensorMetadata
from trtserve_client.images import ImageLayout, array_from_image, array_from_pixels, layout_from_shape
from trtserve_protos import dtypes

PIL_Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

LAYOUTS = [
    ((1, 3, 224, 200), ImageLayout("NCHW", 3, 224, 200)),
    ((-1, 3, -1, -1), ImageLayout("NCHW", 3, -1, -1)),
    ((-1, 1, 28, 28), ImageLayout("NCHW", 1, 28, 28)),
    ((1, 4, 8, 8), ImageLayout("NCHW", 4, 8, 8)),
    ((1, 224, 200, 3), ImageLayout("NHWC", 3, 224, 200)),
    ((-1, -1, -1, 3), ImageLayout("NHWC", 3, -1, -1)),
    ((-1, 28, 28, 1), ImageLayout("NHWC", 1, 28, 28)),
    ((1, 3, 4, 3), ImageLayout("NCHW", 3, 4, 3)),
    ((3, 224, 200), ImageLayout("CHW", 3, 224, 200)),
    ((1, 28, 28), ImageLayout("CHW", 1, 28, 28)),
    ((224, 200, 3), ImageLayout("HWC", 3, 224, 200)),
    ((-1, -1, 4), ImageLayout("HWC", 4, -1, -1)),
    ((-1, 28, 20), ImageLayout("NHW", 1, 28, 20)),
]


@pytest.mark.parametrize(("shape", "layout"), LAYOUTS, ids=[str(shape) for shape, _ in LAYOUTS])
def test_a_shape_tells_the_layout(shape: tuple[int, ...], layout: ImageLayout) -> None:
    assert layout_from_shape(shape) == layout


@pytest.mark.parametrize(
    "shape",
    [(), (784,), (-1, 784), (8, 3, 224, 224), (-1, 2, 8, 8), (-1, -1, -1, -1), (5, 28, 28), (1, 1, 3, 8, 8)],
    ids=str,
)
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"is not that of one image; wanted is one of \[N, C, H, W\]"):
        layout_from_shape(shape)


PIXELS = np.arange(4 * 5 * 3, dtype=np.float64).reshape(4, 5, 3)


@pytest.mark.parametrize(
    ("axes", "channels", "wanted"),
    [
        ("NCHW", 3, PIXELS.transpose(2, 0, 1)[None]),
        ("NHWC", 3, PIXELS[None]),
        ("CHW", 3, PIXELS.transpose(2, 0, 1)),
        ("HWC", 3, PIXELS),
        ("NHW", 1, PIXELS[None, :, :, 0]),
    ],
)
def test_pixels_take_their_places(axes: str, channels: int, wanted: np.ndarray) -> None:
    array = array_from_pixels(PIXELS[:, :, :channels], ImageLayout(axes, channels, 4, 5), dtypes.from_name("FP32"))
    assert array.dtype == np.float32 and array.flags.c_contiguous
    np.testing.assert_array_equal(array, wanted)


@pytest.fixture
def picture(tmp_path: Path) -> tuple[str, np.ndarray]:
    """A PNG file of 6 rows and 4 columns, and its pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)
    PIL_Image.fromarray(pixels).save(tmp_path / "p.png")
    return str(tmp_path / "p.png"), pixels


def spec(datatype: str, *shape: int) -> TensorMetadata:
    return TensorMetadata("pixels", datatype, shape)


@pytest.mark.parametrize("datatype", ["UINT8", "INT32", "UINT16", "FP16", "FP32", "FP64", "BF16"])
def test_pixel_values_are_those_of_the_file(picture: tuple[str, np.ndarray], datatype: str) -> None:
    path, pixels = picture
    array = array_from_image(path, spec(datatype, 1, 6, 4, 3))
    assert array.dtype == dtypes.from_name(datatype).numpy
    np.testing.assert_array_equal(array.astype(np.float64), pixels[None])


def test_scale_multiplies(picture: tuple[str, np.ndarray]) -> None:
    path, pixels = picture
    array = array_from_image(path, spec("FP32", 6, 4, 3), 1 / 255)
    np.testing.assert_allclose(array, pixels / 255, rtol=1e-6)
    assert array_from_image(path, spec("INT8", 6, 4, 3), 0.49).max() <= 127


def test_values_beyond_an_integer_type_are_refused(picture: tuple[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match=r"image '.*p\.png' for input 'pixels': pixel values .* do not fit INT8"):
        array_from_image(picture[0], spec("INT8", 6, 4, 3))
    with pytest.raises(InputError, match="cannot be sent as BOOL"):
        array_from_image(picture[0], spec("BOOL", 6, 4, 3))
    with pytest.raises(InputError, match="datatype 'FP8' is unknown"):
        array_from_image(picture[0], spec("FP8", 6, 4, 3))


def test_colours_and_size_follow_the_model(picture: tuple[str, np.ndarray]) -> None:
    path, _ = picture
    assert array_from_image(path, spec("UINT8", -1, 1, 3, 2)).shape == (1, 1, 3, 2)
    assert array_from_image(path, spec("UINT8", -1, 3, -1, 2)).shape == (1, 3, 6, 2)
    opaque = array_from_image(path, spec("UINT8", 6, 4, 4))
    assert opaque.shape == (6, 4, 4) and (opaque[:, :, 3] == 255).all()


def test_a_photo_taken_upright_arrives_upright(tmp_path: Path) -> None:
    image = PIL_Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    exif = PIL_Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image.save(tmp_path / "p.png", exif=exif)
    assert array_from_image(str(tmp_path / "p.png"), spec("UINT8", 1, -1, -1)).tolist() == [[[3, 0], [4, 1], [5, 2]]]


@pytest.mark.parametrize("shape", [(), (1,), (-1,), (-1, 1)], ids=str)
def test_a_bytes_input_takes_the_file(picture: tuple[str, np.ndarray], shape: tuple[int, ...]) -> None:
    array = array_from_image(picture[0], spec("BYTES", *shape))
    assert array.shape == (1,) * len(shape) and array.item() == Path(picture[0]).read_bytes()


def test_files_that_are_none_are_refused(tmp_path: Path, picture: tuple[str, np.ndarray]) -> None:
    (tmp_path / "text.png").write_text("no image")
    for path in (tmp_path / "text.png", tmp_path / "absent.png"):
        with pytest.raises(InputError, match=f"image '{path}' for input 'pixels': not a readable image"):
            array_from_image(str(path), spec("UINT8", 6, 4, 3))
    with pytest.raises(InputError, match="not readable: No such file"):
        array_from_image(str(tmp_path / "absent.png"), spec("BYTES", 1))
    with pytest.raises(InputError, match=r"one file given, shape \[2\] wanted"):
        array_from_image(picture[0], spec("BYTES", 2))


def test_without_pillow_the_error_says_what_to_install(
    picture: tuple[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"pip install 'trtserve\[image\]'"):
        array_from_image(picture[0], spec("UINT8", 6, 4, 3))
