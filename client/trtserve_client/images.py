"""An image file to the array that a model takes: layout from the model's metadata, decoding by Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trtserve_client.errors import InputError
from trtserve_client.metadata import TensorMetadata
from trtserve_protos import dtypes
from trtserve_protos.dtypes import DataType
from trtserve_protos.errors import DataTypeError

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_LAYOUTS = "[N, C, H, W], [N, H, W, C], [C, H, W], [H, W, C] with 1, 3 or 4 channels, or [N, H, W]"


@dataclass(frozen=True)
class ImageLayout:
    """How an image lies in a tensor: `axes` such as "NCHW", how many channels, which size; -1 takes any size."""

    axes: str
    channels: int
    height: int
    width: int


def layout_from_shape(shape: Sequence[int]) -> ImageLayout:
    """The layout of one image in a tensor of `shape`, -1 for any size. Raises InputError where it is none.

    A shape that can be read both ways has its channels first: [1, 3, 4, 3] is one image of 4 rows and 3 columns.
    """
    for axes in _possible_axes(shape):
        size = dict(zip(axes, shape, strict=True))
        if size.get("C", 1) in _MODES and size.get("N", 1) in (1, -1):
            return ImageLayout(axes, size.get("C", 1), size["H"], size["W"])
    raise InputError(f"shape {list(shape)} is not that of one image; wanted is one of {_LAYOUTS}, where N is 1 or -1")


def array_from_image(path: str, spec: TensorMetadata, scale: float = 1.0) -> np.ndarray:
    """The image in the file as one tensor for the input `spec`: pixel values 0 to 255 times `scale`.

    Colours are converted to the number of channels and the image is resized (bilinear) where its size is not the
    model's. An input of datatype BYTES takes the file as it is. Raises InputError.
    """
    try:
        datatype = dtypes.from_name(spec.datatype)
        if datatype is dtypes.BYTES:
            return _file_as_element(path, spec.shape)
        layout = layout_from_shape(spec.shape)
        return array_from_pixels(_read_pixels(path, layout) * np.float64(scale), layout, datatype)
    except (InputError, DataTypeError, ImportError) as error:
        raise InputError(f"image {path!r} for input {spec.name!r}: {error}") from error


def array_from_pixels(pixels: np.ndarray, layout: ImageLayout, datatype: DataType) -> np.ndarray:
    """Pixels [H, W, C] as a tensor of the layout and datatype. Raises InputError where their values do not fit."""
    dtype = datatype.numpy
    if dtype.kind == "b":
        raise InputError("pixels cannot be sent as BOOL")
    if dtype.kind in "iu":
        limits, pixels = np.iinfo(dtype), np.rint(pixels)
        if pixels.min() < limits.min or pixels.max() > limits.max:
            given = f"{pixels.min():g} ... {pixels.max():g}"
            raise InputError(f"pixel values {given} do not fit {datatype.name}; change --scale")
    array = pixels.astype(dtype)
    if "C" not in layout.axes:
        array = array[:, :, 0]
    elif layout.axes.endswith("CHW"):
        array = array.transpose(2, 0, 1)
    return np.ascontiguousarray(array[np.newaxis] if layout.axes.startswith("N") else array)


def _possible_axes(shape: Sequence[int]) -> tuple[str, ...]:
    if len(shape) == 4:
        return ("NCHW", "NHWC")
    if len(shape) == 3:
        return ("CHW", "HWC", "NHW")
    return ()


def _read_pixels(path: str, layout: ImageLayout) -> np.ndarray:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise InputError("reading images needs Pillow: pip install 'trtserve[image]'") from error
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert(_MODES[layout.channels])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"not a readable image: {error}") from error
    size = (layout.width if layout.width > 0 else image.width, layout.height if layout.height > 0 else image.height)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image.height, image.width, layout.channels)


def _file_as_element(path: str, shape: Sequence[int]) -> np.ndarray:
    if any(size not in (1, -1) for size in shape):
        raise InputError(f"one file given, shape {list(shape)} wanted")
    try:
        array = np.empty(1, object)
        array[0] = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"not readable: {error.strerror}") from error
    return array.reshape([1] * len(shape))
