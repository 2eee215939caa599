"""Reads the labels of a model's classes: a text file for each output, with one label per line."""

from __future__ import annotations

from collections.abc import Sequence

from trtserve_engines.config import ConfigError
from trtserve_engines.regular_file import read_regular
from trtserve_server.models.repository import ModelVersion


def read_labels(source: ModelVersion) -> dict[str, Sequence[str]]:
    """The labels of each output that has a file of them. Raises ConfigError."""
    labels: dict[str, Sequence[str]] = {}
    for tensor in source.config.outputs:
        if tensor.label_filename:
            path = source.folder / tensor.label_filename
            try:
                labels[tensor.name] = read_regular(path).decode().splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"output {tensor.name!r}: label file {path} cannot be read: {error}") from error
    return labels
