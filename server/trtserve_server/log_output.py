"""Where log lines go and which of them: settings that can be changed while the server runs."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from typing import TextIO

from trtserve_engines.config import ConfigError
from trtserve_server.config import LOG_FORMATS, LOG_LEVELS, ServerConfig

_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_ISO8601 = "%Y-%m-%dT%H:%M:%SZ"
_CONTINUED = "\n    "
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), 127) if chr(code) not in "\t\n"}


@dataclass(frozen=True)
class LogSettings:
    """Which lines are written; a `verbose_level` of 1 or more adds those for debugging. `format`: see LOG_FORMATS."""

    info: bool = True
    warning: bool = True
    error: bool = True
    verbose_level: int = 0
    format: str = LOG_FORMATS[0]

    @property
    def level(self) -> int:
        """The least severe level that is written."""
        levels = (
            (self.verbose_level > 0, logging.DEBUG),
            (self.info, logging.INFO),
            (self.warning, logging.WARNING),
            (self.error, logging.ERROR),
        )
        return next((level for written, level in levels if written), logging.CRITICAL)

    def writes(self, level: int) -> bool:
        """Whether a line of this level is written."""
        if level >= logging.ERROR:
            return self.error
        if level >= logging.WARNING:
            return self.warning
        return self.info if level >= logging.INFO else self.verbose_level > 0


class LogOutput:
    """A logger's handler with settings. Raises ConfigError where the log file cannot be written."""

    def __init__(self, config: ServerConfig) -> None:
        self.file = config.log_file
        severity = LOG_LEVELS.index(config.log_level)
        self.initial = LogSettings(
            info=severity <= LOG_LEVELS.index("info"),
            warning=severity <= LOG_LEVELS.index("warning"),
            verbose_level=1 if config.log_level == "debug" else 0,
            format=config.log_format,
        )
        self.settings = self.initial
        self._logger: logging.Logger | None = None
        self._handler: logging.Handler | None = None

    def install(self, logger: logging.Logger | None = None, stream: TextIO | None = None) -> None:
        """Writes what comes to `logger`, by default everything, to the log file or else to `stream` or stderr."""
        self._logger = logger or logging.getLogger()
        self._handler = self._open(stream or sys.stderr)
        self._handler.addFilter(lambda record: self.settings.writes(record.levelno))
        self._logger.addHandler(self._handler)
        self.change(self.settings)

    def change(self, settings: LogSettings) -> None:
        """Writes by other settings from now on."""
        self.settings = settings
        if self._logger is not None and self._handler is not None:
            self._logger.setLevel(settings.level)
            self._handler.setFormatter(_formatter(settings.format))

    def _open(self, stream: TextIO) -> logging.Handler:
        if not self.file:
            return logging.StreamHandler(stream)
        try:
            return logging.FileHandler(self.file)
        except OSError as error:
            raise ConfigError(f"log_file = {self.file!r} cannot be written: {error.strerror}") from error


class _Formatter(logging.Formatter):
    """Begins at the left with a record's first line alone and writes no control characters.

    Texts of clients and of files are quoted in the log: none of them can be taken for a line of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_ESCAPED).replace("\n", _CONTINUED)


def _formatter(name: str) -> logging.Formatter:
    if name != "ISO8601":
        return _Formatter(_LINE)
    formatter = _Formatter(_LINE, _ISO8601)
    formatter.converter = time.gmtime
    return formatter
