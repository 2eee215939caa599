"""Finds models on disk: Triton's layout or single ONNX files, to what is to be loaded. Loads nothing.

REPOSITORY/NAME/config.pbtxt or model.toml     optional
REPOSITORY/NAME/VERSION/model.onnx             VERSION is a whole number above 0
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtserve_engines.config import ConfigError
from trtserve_engines.options import as_mapping, build, merged
from trtserve_engines.regular_file import read_regular
from trtserve_engines.script import ScriptConfig, parse_script
from trtserve_server.config import ModelConfig, ServerConfig
from trtserve_server.models.fingerprint import Fingerprint, fingerprint, folder_fingerprint
from trtserve_server.models.given_files import Files, GivenFiles
from trtserve_server.pbtxt import read_pbtxt

CONFIG_FILES = ("model.toml", "config.pbtxt")
DATA_FOLDER = "warmup"
"""Where in a model's folder files of warm-up data lie, as at Triton."""

_WANTED_FILE = (
    "put the ONNX file there, or say what it is called: filename in model.toml, default_model_filename in config.pbtxt"
)


@dataclass(frozen=True)
class ModelVersion:
    """One version to be served: its file, or the `problem` that keeps it from being loaded.

    Equal ones are made of the same configuration and, as far as `content` tells, of the same files.
    """

    name: str
    version: str
    path: Path
    config: ModelConfig
    problem: str = ""
    content: Fingerprint = ()
    script: ScriptConfig | None = None
    """What a model without a file does."""
    files: GivenFiles | None = None
    """What has to be told when `path` is not needed any more."""

    def loaded(self) -> None:
        """Says that nobody will read `path` for this version again."""
        if self.files is not None:
            self.files.done()

    @property
    def folder(self) -> Path:
        """The model's, which holds its configuration, what that refers to, and the folders of its versions."""
        return self.path.parent.parent


Found = dict[str, list[ModelVersion]]
"""The versions to be served of each model, by its name."""


def find_models(config: ServerConfig) -> list[ModelVersion]:
    """Every version that the configuration asks for. Raises ConfigError where a repository or file does not exist.

    What is wrong with one model is that model's `problem`, with version "" where no version could be told.
    """
    check_files(config)
    return [version for versions in scan(config).values() for version in versions]


def check_files(config: ServerConfig) -> None:
    """Raises ConfigError where a model file does not exist: at the start that is a mistake, later it is gone."""
    for file in map(Path, config.model):
        if not file.exists():
            raise ConfigError(f"model file {str(file)!r} does not exist; wanted is the path of an ONNX file")
        if file.is_dir():
            raise ConfigError(f"model file {str(file)!r} is a folder; give a folder of models as --model-repository")


def scan(config: ServerConfig) -> Found:
    """What is there now, by name. Raises ConfigError where a repository does not exist."""
    found = {name: _versions(name, paths, config) for name, paths in _places(config).items()}
    for name, versions in _scripted(config).items():
        found[name] = [_twice(versions[0])] if name in found else versions
    return found


def model_names(config: ServerConfig) -> list[str]:
    """The names of all models on disk. Raises ConfigError."""
    return list(_places(config))


def find_model(config: ServerConfig, name: str, values: Mapping[str, Any] | None = None) -> list[ModelVersion]:
    """The versions of one model, none where there is no such model; `values` stand in for its configuration file.

    Raises ConfigError where a repository does not exist or `values` make no configuration.
    """
    paths = _places(config).get(name)
    if values is not None:
        _config(config, name, values)  # a mistake in what was given is not the model's problem
    return _versions(name, paths, config, values) if paths else _scripted(config).get(name, [])


def given_model(config: ServerConfig, name: str, values: Mapping[str, Any], files: Files) -> list[ModelVersion]:
    """The versions in a folder that is made of `files`. Raises ConfigError for what makes no model, and OSError."""
    given = GivenFiles(name, files)
    try:
        versions = _versions_in_folder(given.folder, config, values)
    except BaseException:
        given.remove()
        raise
    given.users = len(versions)
    return [replace(version, files=given) for version in versions]


def _places(config: ServerConfig) -> dict[str, list[Path]]:
    """The folders and files of each model, by its name: one, unless several models have that name."""
    places: dict[str, list[Path]] = {}
    for folder in _repository_folders(config.model_repository):
        places.setdefault(_text(folder.name), []).append(folder)
    for file in filter(Path.is_file, map(Path, config.model)):
        places.setdefault(_text(file.stem), []).append(file)
    return places


def _repository_folders(repositories: Sequence[str]) -> Iterator[Path]:
    for repository in map(Path, repositories):
        if not repository.is_dir():
            what = "is not a folder" if repository.exists() else "does not exist"
            raise ConfigError(
                f"model repository {str(repository)!r} {what}; wanted is a folder of NAME/VERSION/model.onnx"
            )
        try:
            yield from sorted(path for path in repository.iterdir() if path.is_dir() and path.name[0] not in "._")
        except OSError as error:
            raise ConfigError(f"model repository {str(repository)!r} cannot be read: {error.strerror}") from error


def _versions(
    name: str, paths: Sequence[Path], config: ServerConfig, values: Mapping[str, Any] | None = None
) -> list[ModelVersion]:
    path = paths[0]
    if len(paths) > 1:
        problem = _text(f"two models are called {name!r}: {path} and {paths[1]}; rename one of them")
    elif name != (path.name if path.is_dir() else path.stem):
        problem = f"its name, {name!r}, is not UTF-8, as the names of models must be; rename it"
    else:
        try:
            return _versions_in_folder(path, config, values) if path.is_dir() else [_file_version(path, config, values)]
        except ConfigError as error:
            problem = str(error)
    return [ModelVersion(name, "", path, _config(config, name), problem)]


def _text(name: str) -> str:
    """The name with a mark in place of the bytes that are not UTF-8, which no message could carry."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _file_version(file: Path, config: ServerConfig, values: Mapping[str, Any] | None) -> ModelVersion:
    content: Fingerprint = ()
    if config.model_control_mode != "none":
        # Imported here because mistakes in a configuration are reported without ONNX's package.
        from trtserve_engines.onnx_model import external_data_paths

        content = fingerprint([file, *external_data_paths(file)])
    return ModelVersion(file.stem, "1", file, _config(config, file.stem, values), content=content)


def _versions_in_folder(folder: Path, config: ServerConfig, values: Mapping[str, Any] | None) -> list[ModelVersion]:
    model_config = _folder_config(folder, config, values)
    labels = [folder / tensor.label_filename for tensor in model_config.outputs if tensor.label_filename]
    beside = fingerprint(labels) + (folder_fingerprint(folder / DATA_FOLDER) if model_config.warmup else ())
    # An ensemble has nothing to put into a version's folder, so that it may have none.
    present = _version_numbers(folder) or ([1] if model_config.ensemble else [])
    if not present:
        raise ConfigError(f"{folder} holds no version folder; wanted is {folder}/1/model.onnx")
    numbers = choose_versions(present, model_config.versions)
    return [_version(folder, number, model_config, beside) for number in numbers]


def _version(folder: Path, number: int, config: ModelConfig, beside: Fingerprint) -> ModelVersion:
    path = folder / str(number) / config.filename
    found = path.exists() or config.ensemble
    problem = "" if found else f"{path.parent} holds no {config.filename}; {_WANTED_FILE}"
    content = beside + folder_fingerprint(path.parent)
    return ModelVersion(folder.name, str(number), path, config, problem, content)


def _scripted(config: ServerConfig) -> Found:
    """The models without a file."""
    found: Found = {}
    for script in map(parse_script, config.scripted):
        version = _scripted_version(script, config)
        found[script.name] = [_twice(version) if script.name in found else version]
    return found


def _twice(version: ModelVersion) -> ModelVersion:
    problem = f"two models are called {version.name!r}, of which one is scripted; rename one of them"
    return replace(version, version="", problem=problem, script=None)


def _scripted_version(script: ScriptConfig, server: ServerConfig) -> ModelVersion:
    # No warm-up: the numbers of a script's batches are those of the requests.
    values = {"max_batch_size": script.max_batch_size, "instances": script.instances, "warmup_runs": 0}
    return ModelVersion(script.name, "1", Path("--scripted"), _config(server, script.name, values), script=script)


def _folder_config(folder: Path, server: ServerConfig, values: Mapping[str, Any] | None) -> ModelConfig:
    """The configuration in a model's folder, or in `values`, over the server's defaults. Raises ConfigError."""
    if values is not None:
        return _config(server, folder.name, values)
    files = [folder / name for name in CONFIG_FILES if (folder / name).exists()]
    if len(files) == 2:
        raise ConfigError(f"{folder} has both {CONFIG_FILES[0]} and {CONFIG_FILES[1]}; remove one of them")
    if not files:
        return _config(server, folder.name, source=str(folder))
    return _config(server, folder.name, _read_config_file(files[0]), str(files[0]))


def _config(
    server: ServerConfig, name: str, values: Mapping[str, Any] | None = None, source: str = "configuration"
) -> ModelConfig:
    defaults = {
        "batching": as_mapping(server.batching),
        "onnxruntime": as_mapping(server.onnxruntime),
        "tensorrt": as_mapping(server.tensorrt),
        "run_timeout_s": server.run_timeout_s,
    }
    config = build(ModelConfig, merged(defaults, {"name": name}, values or {}), source)
    if config.name != name:
        raise ConfigError(f"{source}: the name is {config.name!r}, the folder's {name!r}; make them the same")
    return config


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file. Raises ConfigError with the line of a mistake."""
    try:
        return tomllib.loads(read_regular(path).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except ValueError as error:  # TOMLDecodeError, and what Python says of a number of thousands of digits
        raise ConfigError(f"{path}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: its lists or tables are nested too deeply") from None


def config_file(version: ModelVersion) -> Path:
    """What a mistake in the configuration is to be looked for in; the model itself where there is no such file."""
    files = (version.folder / name for name in CONFIG_FILES)
    return next((file for file in files if file.exists()), version.path)


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
    return sorted(int(name) for name in names if name.isdecimal() and int(name) > 0 and name == str(int(name)))


def _read_config_file(path: Path) -> dict[str, Any]:
    return read_toml(path) if path.suffix == ".toml" else read_pbtxt(path)
