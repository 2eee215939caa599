"""Words of the command line to inputs, outputs and parameters."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from google.protobuf import text_format

from trtserve_client.control_operations import Config
from trtserve_client.errors import InputError
from trtserve_client.messages import Parameters
from trtserve_client.metadata import ModelMetadata, TensorMetadata
from trtserve_client.result import ParameterValue
from trtserve_client.settings import LogValue, TraceValue
from trtserve_protos import oip
from trtserve_protos.pool import POOL

_FILES = (".npy", ".npz", ".json")
_SHOWN = 200
"""Characters of what was given that an error repeats."""


def inputs_from_words(words: Iterable[str]) -> dict[str, object]:
    """Inputs from words NAME=JSON or NAME=@FILE, FILE being .npy, .npz or .json. Raises InputError."""
    return {
        name: _file_input(name, text[1:]) if text.startswith("@") else _json_input(name, text)
        for name, text in _pairs(words, "--input", "NAME=JSON or NAME=@FILE")
    }


def parameters_from_words(words: Iterable[str]) -> Parameters:
    """Parameters from words NAME=VALUE: true, false and numbers by JSON's spelling, all else is text."""
    return {name: _parameter_value(text) for name, text in _pairs(words, "--parameter", "NAME=VALUE")}


def headers_from_words(words: Iterable[str]) -> dict[str, str]:
    """Headers from words NAME=VALUE."""
    return dict(_pairs(words, "--metadata", "NAME=VALUE"))


def classified_outputs(names: list[str], top: int, model: ModelMetadata) -> dict[str, Parameters]:
    """The outputs `names`, or all, with the request for their `top` best classes; nothing where `top` is below 1."""
    if top < 1:
        return {}
    datatypes = {tensor.name: tensor.datatype for tensor in model.outputs}
    # Texts have no classes.
    return {name: {"classification": top} if datatypes.get(name) != "BYTES" else {} for name in names or datatypes}


def image_input(model: ModelMetadata, name: str | None, given: Mapping[str, object]) -> TensorMetadata:
    """The input that takes the image: the one called `name`, or the only one that is not given otherwise."""
    specs = [spec for spec in model.inputs if (spec.name == name if name else spec.name not in given)]
    if len(specs) == 1:
        return specs[0]
    inputs = ", ".join(map(str, model.inputs)) or "no input"
    raise InputError(f"--image-input NAME must name the input for the image; model {model.name!r} takes {inputs}")


def config_from_word(word: str | None) -> Config | None:
    """The configuration in JSON that the word is; of @FILE, that in the file, or a config.pbtxt. Raises InputError."""
    if word is None or not word.startswith("@"):
        return word
    try:
        text = Path(word[1:]).read_text("utf-8")
        is_pbtxt = word.endswith(".pbtxt")
        return text_format.Parse(text, oip.ModelConfig(), descriptor_pool=POOL) if is_pbtxt else text
    except (OSError, ValueError, text_format.ParseError) as error:
        raise InputError(f"--config: file {word[1:]!r} cannot be read: {error}") from error


def files_from_words(words: Iterable[str]) -> dict[str, bytes]:
    """The content of files from words NAME=FILE. Raises InputError."""
    files = {}
    for name, path in _pairs(words, "--file", "NAME=FILE"):
        try:
            files[name] = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            raise InputError(f"--file {name}: {path!r} cannot be read: {error}") from error
    return files


def trace_changes_from_words(words: Iterable[str]) -> dict[str, TraceValue]:
    """Trace settings from words NAME=VALUE, several values with commas; none takes a change back."""
    return {name: text.split(",") if text else None for name, text in _pairs(words, "", "NAME=VALUE")}


def log_changes_from_words(words: Iterable[str]) -> dict[str, LogValue]:
    """Log settings from words NAME=VALUE: true, false and whole numbers, all else is text; none takes a change back."""
    return {name: _log_value(text) for name, text in _pairs(words, "", "NAME=VALUE")}


def _log_value(text: str) -> LogValue:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.isdecimal() and len(text) < 11 else text or None


def _pairs(words: Iterable[str], option: str, form: str) -> list[tuple[str, str]]:
    pairs = []
    for word in words:
        name, separator, text = word.partition("=")
        if not (name and separator):
            raise InputError(f"{option} {word!r} given, {form} wanted".lstrip())
        pairs.append((name, text))
    return pairs


def _json_input(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        hint = f"; a file is given as {name}=@{text}" if Path(text).suffix.lower() in _FILES else ""
        raise InputError(f"--input {name}: {text[:_SHOWN]!r} cannot be read as an array: {error}{hint}") from error


def _file_input(name: str, file: str) -> object:
    try:
        return _array_from_file(name, Path(file))
    except (OSError, ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise InputError(f"--input {name}: file {file!r} cannot be read as an array: {error}") from error


def _array_from_file(name: str, path: Path) -> object:
    match path.suffix.lower():
        case ".json":
            return json.loads(path.read_text("utf-8"))
        case ".npy":
            return np.load(path, allow_pickle=False)
        case ".npz":
            with np.load(path, allow_pickle=False) as archive:
                names = archive.files
                if name not in names and len(names) != 1:
                    raise ValueError(f"it holds {', '.join(names) or 'nothing'}; {name} is wanted")
                return archive[name if name in names else names[0]]
    raise ValueError(f"its name ends in {path.suffix!r}, one of {', '.join(_FILES)} is wanted")


def _parameter_value(text: str) -> ParameterValue:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float | str) else text
