"""Which log lines are written, by settings that change while lines come."""

import io
import logging
import re
from dataclasses import replace

import pytest

from trtserve_engines.config import ConfigError
from trtserve_server.config import ServerConfig
from trtserve_server.log_output import LogOutput, LogSettings

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@pytest.fixture
def logger():
    made = logging.getLogger("tests.log_output")
    made.propagate = False
    yield made
    for handler in tuple(made.handlers):
        made.removeHandler(handler)
        handler.close()


def written(logger, stream):
    """The levels of which a line is written."""
    stream.truncate(0), stream.seek(0)
    for name, level in LEVELS.items():
        logger.log(level, "line of %s", name)
    return set(re.findall(r"line of (\w+)", stream.getvalue()))


@pytest.mark.parametrize(
    ("level", "wanted"),
    [
        ("debug", {"debug", "info", "warning", "error"}),
        ("info", {"info", "warning", "error"}),
        ("warning", {"warning", "error"}),
        ("error", {"error"}),
    ],
)
def test_the_configured_level_is_where_the_settings_begin(logger, level, wanted):
    output, stream = LogOutput(ServerConfig(log_level=level)), io.StringIO()
    output.install(logger, stream)
    assert written(logger, stream) == wanted


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"info": False}, {"warning", "error"}),
        ({"warning": False}, {"info", "error"}),
        ({"error": False}, {"info", "warning"}),
        ({"verbose_level": 1}, {"debug", "info", "warning", "error"}),
        ({"verbose_level": 2, "info": False}, {"debug", "warning", "error"}),
        ({"info": False, "warning": False, "error": False}, set()),
    ],
)
def test_each_setting_governs_its_lines(logger, changes, wanted):
    output, stream = LogOutput(ServerConfig()), io.StringIO()
    output.install(logger, stream)
    output.change(replace(output.settings, **changes))
    assert written(logger, stream) == wanted
    assert logger.isEnabledFor(logging.DEBUG) == ("debug" in wanted)  # what is not written costs nothing


def test_no_text_in_a_record_can_be_taken_for_a_line_of_its_own(logger):
    stream = io.StringIO()
    LogOutput(ServerConfig()).install(logger, stream)
    try:
        raise ValueError("a\n2026-01-01 00:00:00,000 INFO trtserve_server: forged")
    except ValueError as error:
        logger.error("no %s", "x\n2026-01-01 00:00:00,000 INFO trtserve_server: forged \r\x1b[2K", exc_info=error)
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("no x")
    assert all(line.startswith("    ") for line in rest)
    assert "forged \\x0d\\x1b[2K" in rest[0]


def test_the_format_of_times_can_be_changed(logger):
    output, stream = LogOutput(ServerConfig()), io.StringIO()
    output.install(logger, stream)
    logger.info("one")
    output.change(LogSettings(format="ISO8601"))
    logger.info("two")
    one, two = stream.getvalue().splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO ", one)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO ", two)


def test_lines_are_added_to_a_file(logger, tmp_path):
    file = tmp_path / "server.log"
    file.write_text("before\n")
    LogOutput(ServerConfig(log_file=str(file))).install(logger)
    logger.info("after")
    assert re.fullmatch(r"before\n.* INFO tests.log_output: after\n", file.read_text())


def test_a_file_that_cannot_be_written_stops_the_start(logger, tmp_path):
    with pytest.raises(ConfigError, match="log_file = .*none/server.log' cannot be written: No such file"):
        LogOutput(ServerConfig(log_file=str(tmp_path / "none" / "server.log"))).install(logger)


def test_settings_without_an_installed_output_change_no_logger():
    level = logging.getLogger().level
    LogOutput(ServerConfig()).change(LogSettings(verbose_level=1))
    assert logging.getLogger().level == level
