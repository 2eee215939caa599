"""A command line whose mistakes, packages that are not installed among them, are answered in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from trtserve_engines.options import nearest

EXIT_USAGE = 2


class CommandLine(argparse.ArgumentParser):
    """Never guesses a shortened flag. A mistake ends the process with EXIT_USAGE and the nearest flag that is known."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, **keywords)

    def parse_args(self, arguments: Any = None, namespace: Any = None) -> Any:
        """The values of `arguments`; words and flags may be mixed."""
        parsed, unknown = self.parse_known_intermixed_args(arguments, namespace)
        if unknown:
            name = unknown[0].partition("=")[0]
            flags = [flag for action in self._actions for flag in action.option_strings]
            self.error(f"{name!r} is unknown{nearest(name, flags)}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Says it and ends the process."""
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)


@contextmanager
def packages_of(extra: str, program: str) -> Iterator[None]:
    """Around imports: ends the process with EXIT_USAGE where one of the packages of trtserve's `extra` is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        print(
            f"{program}: the package {error.name!r} is not installed; {program} needs those of its extra:"
            f" pip install 'trtserve[{extra}]'",
            file=sys.stderr,
        )
        raise SystemExit(EXIT_USAGE) from None
