"""Finds models on disk: Triton's layout or single ONNX files, to what is to be loaded. Loads nothing.

REPOSITORY/NAME/config.pbtxt or model.toml     optional
REPOSITORY/NAME/VERSION/model.onnx             VERSION is a whole number above 0
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtserve_engines.config import ConfigError
from trtserve_server.config import ModelConfig, ServerConfig
from trtserve_server.options import as_mapping, build, merged
from trtserve_server.pbtxt import read_pbtxt

CONFIG_FILES = ("model.toml", "config.pbtxt")


@dataclass(frozen=True)
class ModelVersion:
    """One version to be served: its file, or the `problem` that keeps it from being loaded."""

    name: str
    version: str
    path: Path
    config: ModelConfig
    problem: str = ""


def find_models(config: ServerConfig) -> list[ModelVersion]:
    """Every version that the configuration asks for. Raises ConfigError where a repository or file does not exist.

    What is wrong with one model is that model's `problem`, with version "" where no version could be told.
    """
    defaults = {
        "batching": as_mapping(config.batching),
        "onnxruntime": as_mapping(config.onnxruntime),
        "run_timeout_s": config.run_timeout_s,
    }
    found: dict[str, list[ModelVersion]] = {}
    for folder in _repository_folders(config.model_repository):
        _add(found, folder.name, folder, _versions_in_folder(folder, defaults))
    for file in map(Path, config.model):
        if not file.exists():
            raise ConfigError(f"model file {str(file)!r} does not exist; wanted is the path of an ONNX file")
        if file.is_dir():
            raise ConfigError(f"model file {str(file)!r} is a folder; give a folder of models as --model-repository")
        _add(found, file.stem, file, [ModelVersion(file.stem, "1", file, _config(defaults, file.stem))])
    return [version for versions in found.values() for version in versions]


def _repository_folders(repositories: Sequence[str]) -> list[Path]:
    folders = []
    for repository in map(Path, repositories):
        if not repository.is_dir():
            what = "is not a folder" if repository.exists() else "does not exist"
            raise ConfigError(
                f"model repository {str(repository)!r} {what}; wanted is a folder of NAME/VERSION/model.onnx"
            )
        try:
            folders += sorted(path for path in repository.iterdir() if path.is_dir() and path.name[0] not in "._")
        except OSError as error:
            raise ConfigError(f"model repository {str(repository)!r} cannot be read: {error.strerror}") from error
    return folders


def _add(found: dict[str, list[ModelVersion]], name: str, path: Path, versions: list[ModelVersion]) -> None:
    shown = _text(name)
    if shown != name:
        problem = f"its name, {shown!r}, is not UTF-8, as the names of models must be; rename it"
        versions = [replace(versions[0], name=shown, version="", problem=problem)]
    if shown in found:
        problem = _text(f"two models are called {shown!r}: {found[shown][0].path} and {path}; rename one of them")
        found[shown] = [replace(found[shown][0], version="", problem=problem)]
    else:
        found[shown] = versions


def _text(name: str) -> str:
    """The name with a mark in place of the bytes that are not UTF-8, which no message could carry."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _versions_in_folder(folder: Path, defaults: Mapping[str, Any]) -> list[ModelVersion]:
    try:
        config = read_model_config(folder, defaults)
        numbers = _version_numbers(folder)
        chosen = choose_versions(numbers, config.versions)
    except ConfigError as error:
        return [ModelVersion(folder.name, "", folder, _config(defaults, folder.name), problem=str(error))]
    return [_version(folder, number, config) for number in chosen]


def _version(folder: Path, number: int, config: ModelConfig) -> ModelVersion:
    path = folder / str(number) / config.filename
    problem = "" if path.exists() else f"{path.parent} holds no {config.filename}; put the model there"
    return ModelVersion(folder.name, str(number), path, config, problem)


def read_model_config(folder: Path, defaults: Mapping[str, Any]) -> ModelConfig:
    """The configuration in a model's folder over `defaults`. Raises ConfigError."""
    files = [folder / name for name in CONFIG_FILES if (folder / name).exists()]
    if len(files) == 2:
        raise ConfigError(f"{folder} has both {CONFIG_FILES[0]} and {CONFIG_FILES[1]}; remove one of them")
    values = _read_config_file(files[0]) if files else {}
    source = str(files[0]) if files else str(folder)
    config = build(ModelConfig, merged(defaults, {"name": folder.name}, values), source)
    if config.name != folder.name:
        raise ConfigError(f"{source}: the name is {config.name!r}, the folder's {folder.name!r}; make them the same")
    return config


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file. Raises ConfigError with the line of a mistake."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None


def choose_versions(present: Sequence[int], policy: str) -> list[int]:
    """The versions that a policy such as "latest:2", "all" or "1,3" serves. Raises ConfigError."""
    kind, _, count = policy.partition(":")
    if policy == "all":
        return sorted(present)
    if kind == "latest" and ((count.isdecimal() and int(count) > 0) or policy == "latest"):
        return sorted(present)[-int(count or 1) :]
    wanted = [part.strip() for part in policy.split(",")]
    if not all(part.isdecimal() for part in wanted):
        raise ConfigError(f'versions = {policy!r}; wanted is "latest", "latest:N", "all" or a list such as "1,3"')
    missing = sorted(set(map(int, wanted)) - set(present))
    if missing:
        raise ConfigError(f"versions = {policy!r}, but there is no version {missing[0]}; there are {list(present)}")
    return sorted(map(int, wanted))


def _version_numbers(folder: Path) -> list[int]:
    try:
        names = [path.name for path in folder.iterdir() if path.is_dir()]
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read: {error.strerror}") from error
    numbers = sorted(int(name) for name in names if name.isdecimal() and int(name) > 0 and name == str(int(name)))
    if not numbers:
        raise ConfigError(f"{folder} holds no version folder; wanted is {folder}/1/model.onnx")
    return numbers


def _read_config_file(path: Path) -> dict[str, Any]:
    return read_toml(path) if path.suffix == ".toml" else read_pbtxt(path)


def _config(defaults: Mapping[str, Any], name: str) -> ModelConfig:
    return build(ModelConfig, merged(defaults, {"name": name}), name)
