"""TensorRT's messages reach logging and whoever collects the reasons of a failure, from any thread."""

import logging
import threading

import pytest

from trtserve_engines.tensorrt.trt_log import LogLines, TensorRtLog, tensorrt_log


@pytest.fixture
def tensorrt_messages(trt):
    return TensorRtLog(trt)


def say(log, trt, severity, message):
    log.native.log(getattr(trt.ILogger.Severity, severity), message)


def test_there_is_one_logger_per_process(trt):
    assert tensorrt_log(trt) is tensorrt_log(trt)


def test_messages_go_to_logging_with_their_level(trt, tensorrt_messages, caplog):
    tensorrt_messages.set_verbosity("verbose")
    with caplog.at_level(logging.DEBUG):
        for severity in ("VERBOSE", "INFO", "WARNING", "ERROR", "INTERNAL_ERROR"):
            say(tensorrt_messages, trt, severity, severity.lower())
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("DEBUG", "verbose"),
        ("INFO", "info"),
        ("WARNING", "warning"),
        ("ERROR", "error"),
        ("CRITICAL", "internal_error"),
    ]


def test_what_is_below_the_verbosity_is_dropped(trt, tensorrt_messages, caplog):
    with caplog.at_level(logging.DEBUG), tensorrt_messages.collect() as lines:
        say(tensorrt_messages, trt, "INFO", "chatter 100%s")
        say(tensorrt_messages, trt, "WARNING", "100%s sure")
    assert caplog.messages == ["100%s sure"] and lines.at_least(0) == ["100%s sure"]


def test_reasons_are_collected_below_the_logged_level_too(trt, tensorrt_messages, caplog):
    tensorrt_messages.set_verbosity("error")
    with caplog.at_level(logging.DEBUG), tensorrt_messages.collect() as lines:
        say(tensorrt_messages, trt, "WARNING", "careful")
    assert caplog.messages == [] and lines.reason() == "careful"


def test_the_reason_is_the_errors_each_once(trt, tensorrt_messages):
    with tensorrt_messages.collect() as lines:
        for severity, message in (("WARNING", "w"), ("ERROR", "first"), ("ERROR", "second"), ("ERROR", "first")):
            say(tensorrt_messages, trt, severity, message)
    assert lines.reason() == "first; second"


def test_a_silent_failure_is_called_one():
    assert LogLines().reason() == "TensorRT gave no reason"


def test_a_collector_ends_with_its_block_and_gives_way_to_an_inner_one(trt, tensorrt_messages):
    with tensorrt_messages.collect() as outer:
        with tensorrt_messages.collect() as inner:
            say(tensorrt_messages, trt, "ERROR", "inner")
        say(tensorrt_messages, trt, "ERROR", "outer")
    say(tensorrt_messages, trt, "ERROR", "later")
    assert inner.at_least(0) == ["inner"] and outer.at_least(0) == ["outer"]


def test_threads_that_collect_hear_their_own_and_those_of_tensorrts_threads(trt, tensorrt_messages):
    def other():
        with tensorrt_messages.collect() as own:
            say(tensorrt_messages, trt, "ERROR", "of the other")
            theirs.append(own.at_least(0))

    theirs = []
    with tensorrt_messages.collect() as lines:
        for work in (other, lambda: say(tensorrt_messages, trt, "ERROR", "of a worker")):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
    assert lines.at_least(0) == ["of a worker"] and theirs == [["of the other"]]


def test_only_the_newest_lines_are_kept():
    lines = LogLines()
    for number in range(2000):
        lines.add(logging.ERROR, str(number))
    assert len(lines.at_least(0)) == 1000 and lines.at_least(0)[-1] == "1999"
