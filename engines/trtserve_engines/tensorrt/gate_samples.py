"""The samples on which an engine is compared with the model: real ones from a file, or made up to fit its profile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from trtserve_engines.accuracy import Tolerance
from trtserve_engines.config import ConfigError
from trtserve_engines.sample_file import Sample, read_samples
from trtserve_engines.samples import sample_inputs
from trtserve_engines.signature import Signature, TensorSpec
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.profile_shapes import ProfileShapes, Shape
from trtserve_engines.tensorrt.profiles import is_dynamic


def gate_samples(signature: Signature, config: BuildConfig, tolerance: Tolerance) -> list[Sample]:
    """At most `accuracy_runs` samples. `config` holds the engine's profiles.

    Made-up ones have the smallest shapes of each profile in turn, the last one the usual shapes; real ones are cut into
    batches that some profile takes. Raises ModelFileError or SignatureError for a file that does not fit, ConfigError
    for shapes that no profile takes.
    """
    profiles = config.profile_shapes()
    if not tolerance.accuracy_samples:
        return list(_all_made_up(signature, profiles or (ProfileShapes(()),), tolerance.accuracy_runs))
    path = Path(tolerance.accuracy_samples)
    samples = read_samples(path, signature, rows=_least_rows(signature, profiles))
    fitting = [sample for sample in samples if _some_profile_takes(sample, signature, profiles)]
    if not fitting:
        raise ConfigError(f"no sample in {path} has shapes within a profile ({'; '.join(map(str, profiles))})")
    return fitting[: tolerance.accuracy_runs]


def _all_made_up(signature: Signature, profiles: Sequence[ProfileShapes], runs: int) -> Iterator[Sample]:
    for run in range(runs):
        profile = profiles[run % len(profiles)]
        shapes = {name: each.opt if run == runs - 1 else each.min for name, each in profile.inputs}
        yield _made_up(signature, shapes, seed=run)


def _made_up(signature: Signature, shapes: Mapping[str, Shape], seed: int) -> Sample:
    fixed = tuple(
        TensorSpec(spec.name, spec.dtype, shapes[spec.name]) if is_dynamic(spec) else spec for spec in signature.inputs
    )
    sample = sample_inputs(Signature(fixed, ()), seed=seed)
    for spec in signature.inputs:
        if spec.name in shapes and not is_dynamic(spec):  # what the graph reads as a shape
            sample[spec.name] = np.array(shapes[spec.name], spec.dtype).reshape(spec.shape)
    return sample


def _least_rows(signature: Signature, profiles: tuple[ProfileShapes, ...]) -> int:
    rows = [
        shapes.min[0]
        for profile in profiles
        for name, shapes in profile.inputs
        if shapes.min and is_dynamic(signature.input_by_name[name])
    ]
    return max(1, min(rows, default=1))


def _some_profile_takes(sample: Sample, signature: Signature, profiles: tuple[ProfileShapes, ...]) -> bool:
    return not profiles or any(
        all(
            shapes.holds(sample[name].shape)
            if is_dynamic(signature.input_by_name[name])
            else shapes.holds(tuple(sample[name].reshape(-1).tolist()))
            for name, shapes in profile.inputs
        )
        for profile in profiles
    )
