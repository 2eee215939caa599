"""What is sent: the inputs of the prepared requests, made up or read from files. What does not fit is a UsageError."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from trtserve_client.errors import InputError
from trtserve_client.images import array_from_image
from trtserve_client.inputs import fit_inputs
from trtserve_client.load.config import LoadConfig
from trtserve_client.load.errors import UsageError
from trtserve_client.load.generated import generated_inputs, ranges_from_words, shapes_from_words
from trtserve_client.metadata import ModelMetadata

Request = dict[str, np.ndarray]
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
_MOST_BYTES = 1 << 30


def requests_from_config(config: LoadConfig, model: ModelMetadata) -> list[Request]:
    """The different requests of the load, at most `config.requests` and at most 1 GiB of them."""
    requests: list[Request] = []
    size = 0
    for request in islice(_requests(config, model), config.requests):
        size += sum(array.nbytes for array in request.values())
        if requests and size > _MOST_BYTES:
            break
        requests.append(request)
    if not requests:
        raise UsageError(f"--data {config.data} holds no request")
    return requests


def request_from_plain(inputs: Mapping[str, Any], model: ModelMetadata, where: str) -> Request:
    """One request from arrays or nested lists. Raises UsageError that begins with `where`."""
    try:
        # What is an array or a list comes back as an array.
        return cast(Request, fit_inputs(model, inputs))
    except InputError as error:
        raise UsageError(f"{where}: {error}") from None


def _requests(config: LoadConfig, model: ModelMetadata) -> Iterator[Request]:
    if config.data in ("random", "zeros"):
        return _generated(config, model)
    if config.shape or config.range:
        raise UsageError("--shape and --range are for made-up data; drop them or --data")
    path = Path(config.data)
    if path.is_dir():
        return _from_images(path, config, model)
    readers = {".npy": _from_npy, ".npz": _from_npz, ".jsonl": _from_json_lines}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"--data {config.data}: random, zeros, a folder of images, .npy, .npz or .jsonl is wanted")
    try:
        return iter(reader(path, model))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UsageError(f"--data {config.data} cannot be read: {error}") from None


def _generated(config: LoadConfig, model: ModelMetadata) -> Iterator[Request]:
    shapes, ranges = shapes_from_words(config.shape, model), ranges_from_words(config.range, model)
    for number in range(1 if config.data == "zeros" else config.requests):
        try:
            request = generated_inputs(
                model,
                zeros=config.data == "zeros",
                rows=config.rows,
                shapes=shapes,
                ranges=ranges,
                seed=config.seed + number,
            )
        except MemoryError as error:
            raise UsageError(f"inputs of --rows {config.rows} do not fit into memory: {error}") from None
        yield request


def _from_npy(path: Path, model: ModelMetadata) -> Iterable[Request]:
    if len(model.inputs) != 1:
        names = ", ".join(map(str, model.inputs))
        raise UsageError(f"--data {path}: a .npy file is one input, and the model takes {names}; give an .npz file")
    array = np.load(path, allow_pickle=False)
    return [request_from_plain({model.inputs[0].name: array}, model, f"--data {path}")]


def _from_npz(path: Path, model: ModelMetadata) -> Iterable[Request]:
    # A file of our own: numpy leaves its own open where the archive is damaged.
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
        return [request_from_plain(dict(archive), model, f"--data {path}")]


def _from_json_lines(path: Path, model: ModelMetadata) -> Iterable[Request]:
    return (request_from_plain(values, model, where) for where, values in json_lines(path, "--data"))


def json_lines(path: Path, option: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each line is, and the object that it holds. Raises UsageError."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option} {path} cannot be read: {error}") from None
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{option} {path}, line {number}"
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{where}: no JSON: {error}") from None
        if not isinstance(values, dict):
            raise UsageError(f'{where}: an object of inputs is wanted, for example {{"x": [[1, 2]]}}')
        yield where, values


def _from_images(folder: Path, config: LoadConfig, model: ModelMetadata) -> Iterator[Request]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)
    if not files:
        raise UsageError(f"--data {folder}: the folder holds no images ({', '.join(IMAGES)})")
    if len(model.inputs) != 1:
        raise UsageError(f"--data {folder}: images are for models with one input; {model.name} has {len(model.inputs)}")
    if config.rows > 1:
        raise UsageError("--rows is for made-up data; a request with an image has one row")
    spec = model.inputs[0]
    try:
        for file in files:
            yield {spec.name: array_from_image(str(file), spec, config.image_scale)}
    except InputError as error:
        raise UsageError(str(error)) from None
