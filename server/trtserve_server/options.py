"""What the server adds to options: their environment variables, and a configuration as the text of a file.

Precedence: command line, then environment (TRTSERVE_*), then file, then the default in the dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtserve_engines.config import ConfigError
from trtserve_engines.options import ENVIRONMENT_PREFIX, nearest, options_of, parse_text, put, text_of, toml_key

CLIENT_ENVIRONMENT_PREFIX = "TRTSERVE_CLIENT_"
"""Variables of the client programs, which the server leaves alone."""


def from_environment(cls: type, environment: Mapping[str, str]) -> dict[str, Any]:
    """Nested values of the TRTSERVE_* variables. Raises ConfigError for one that is unknown."""
    known = {option.variable: option for option in options_of(cls)}
    values: dict[str, Any] = {}
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or name.startswith(CLIENT_ENVIRONMENT_PREFIX):
            continue
        if name not in known:
            raise ConfigError(f"environment: {name!r} is unknown{nearest(name, known)}")
        put(values, known[name].path, parse_text(text, known[name].type, name))
    return values


def toml_text(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Nested plain values as TOML, which can be read back as a configuration file."""
    lines = [f"{key} = {text_of(value)}" for key, value in values.items() if not isinstance(value, Mapping)]
    if path and lines:
        lines.insert(0, f"\n[{'.'.join(toml_key(part) for part in path)}]")
    nested = [toml_text(value, (*path, key)) for key, value in values.items() if isinstance(value, Mapping)]
    return "\n".join(lines + [text for text in nested if text])
