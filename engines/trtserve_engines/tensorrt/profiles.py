"""Puts optimization profiles and a model together: checks those that were given, derives one where none was.

Pure: works on the signature alone. Whether an integer input is read as a shape, only TensorRT's parser knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from trtserve_engines.config import ConfigError
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.profile_shapes import ProfileShapes, ShapeRange

_EXAMPLE_SIZE = 224


def with_profiles(config: BuildConfig, signature: Signature) -> BuildConfig:
    """`config` with the profiles that the model will have: those given, checked, or one derived from the signature.

    A derived profile lets the first dimension of each input run from 1 to max_batch_size, with preferred_batch_size
    as the size that kernels are tuned for. Raises ConfigError that says which input lacks what, and how to give it.
    """
    profiles = config.profile_shapes() or _derived(config, signature)
    for profile in profiles:
        _check(profile, signature)
    return dataclasses.replace(config, profiles=tuple(str(profile) for profile in profiles))


def is_dynamic(spec: TensorSpec) -> bool:
    """Whether a dimension of the tensor may have any size."""
    return DYNAMIC in spec.shape


def max_rows(profiles: Sequence[ProfileShapes], signature: Signature) -> int | None:
    """The largest first dimension that some profile allows for every dynamic input; None for a static model."""
    dynamic = [spec.name for spec in signature.inputs if spec.shape and spec.shape[0] == DYNAMIC]
    if not dynamic:
        return None
    return max(min(profile_range(profile, name).max[0] for name in dynamic) for profile in profiles)


def profile_range(profile: ProfileShapes, name: str) -> ShapeRange:
    """The range of an input that the profile is known to name."""
    shapes = profile.range_of(name)
    if shapes is None:
        raise ConfigError(f"profile '{profile}' does not name input {name!r}")
    return shapes


def _derived(config: BuildConfig, signature: Signature) -> tuple[ProfileShapes, ...]:
    dynamic = [spec for spec in signature.inputs if is_dynamic(spec)]
    for spec in dynamic:
        axes = [axis for axis, size in enumerate(spec.shape) if axis and size == DYNAMIC]
        if axes:
            raise ConfigError(
                f"input {spec.name!r} has the shape {list(spec.shape)}: a range for axis"
                f" {', '.join(map(str, axes))} cannot be derived; give a profile, for example"
                f" '{_example(dynamic, config)}'"
            )
    if not dynamic:
        return ()
    preferred = config.preferred_batch_size or config.max_batch_size
    rows = (1, preferred, config.max_batch_size)
    return (ProfileShapes.of({spec.name: _range(spec, rows) for spec in dynamic}),)


def _range(spec: TensorSpec, rows: tuple[int, int, int], other: int = _EXAMPLE_SIZE) -> ShapeRange:
    fixed = tuple(other if size == DYNAMIC else size for size in spec.shape[1:])
    low, usual, high = rows
    if spec.shape[0] != DYNAMIC:
        low = usual = high = spec.shape[0]
    return ShapeRange((low, *fixed), (usual, *fixed), (high, *fixed))


def _example(dynamic: Sequence[TensorSpec], config: BuildConfig) -> str:
    rows = (1, config.preferred_batch_size or config.max_batch_size, config.max_batch_size)
    return str(ProfileShapes.of({spec.name: _range(spec, rows) for spec in dynamic}))


def _check(profile: ProfileShapes, signature: Signature) -> None:
    for name, shapes in profile.inputs:
        spec = signature.input_by_name.get(name)
        if spec is None:
            known = ", ".join(repr(other.name) for other in signature.inputs)
            raise ConfigError(f"profile '{profile}' names input {name!r}, which the model lacks; it has {known}")
        if is_dynamic(spec):
            _check_shapes(spec, shapes)
        else:
            _check_values(spec, shapes)
    missing = [spec for spec in signature.inputs if is_dynamic(spec) and profile.range_of(spec.name) is None]
    if missing:
        spec = missing[0]
        raise ConfigError(
            f"profile '{profile}' does not name input {spec.name!r} of shape {list(spec.shape)};"
            f" add its range, for example '{spec.name}={_range(spec, (1, 8, 32))}'"
        )


def _check_shapes(spec: TensorSpec, shapes: ShapeRange) -> None:
    for shape in shapes:
        fits = len(shape) == len(spec.shape) and all(
            size >= 0 and wanted in (DYNAMIC, size) for size, wanted in zip(shape, spec.shape, strict=True)
        )
        if not fits:
            raise ConfigError(
                f"profile, input {spec.name!r}: {'x'.join(map(str, shape))} does not fit the model's shape"
                f" {list(spec.shape)}"
            )


def _check_values(spec: TensorSpec, shapes: ShapeRange) -> None:
    """An input without dynamic dimensions can be in a profile only for its values, as one that is read as a shape."""
    elements = spec.shape[0] if spec.shape else 1
    if spec.dtype.kind not in "iu" or len(spec.shape) > 1:
        raise ConfigError(
            f"profile, input {spec.name!r}: its shape {list(spec.shape)} is fixed, so there is no range to give;"
            " take it out of the profile"
        )
    if len(shapes.min) != elements:
        raise ConfigError(
            f"profile, input {spec.name!r}: {shapes} stands for the values that it may have, and it has {elements}"
        )
