"""Which requests are traced, what is recorded of them, and the files that hold it."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from trtserve_engines.config import ConfigError
from trtserve_server.config import TraceConfig
from trtserve_server.errors import QueueFull, RequestCancelled
from trtserve_server.request import BatchTiming, InferResponse
from trtserve_server.trace_file import Trace, TraceWriter, write_traces
from trtserve_server.tracing import Traced, Tracer

X = {"x": np.array([[1.5, -2]], np.float32)}
TIMING = BatchTiming("m/1#0", 4, 0.5, 1.4, 1.5, 2.0, 100, 200, 50)
ANSWER = InferResponse({"y": np.array([[3]], np.int64)}, 1.0, TIMING)


class TracerRig:
    """A tracer and what it had written: path, numbers of the traces, whether the file is begun anew."""

    def __init__(self, **settings):
        self.written = []
        config = TraceConfig(**{"file": "t", "level": ("TIMESTAMPS",), "rate": 1, **settings})
        self.tracer = Tracer(config, lambda *written: self.written.append(written))
        self.answers = []

    def ask(self, times=1, model="m"):
        """So many requests; how many of them were traced."""
        traced = 0
        for _ in range(times):
            complete = self.answers.append
            given = self.tracer.traced((model, "1"), "", X, 1.0, complete) if self.tracer.active else complete
            traced += given is not complete
            given(ANSWER)
        return traced

    def files(self):
        return [(path, [trace.number for trace in traces], anew) for path, traces, anew in self.written]


def test_off_costs_one_look_and_takes_nothing():
    t = TracerRig(level=("OFF",))
    assert (t.tracer.active, t.ask(5), t.files()) == (False, 0, [])


@pytest.mark.parametrize(("rate", "requests", "traced"), [(1, 5, 5), (2, 5, 2), (10, 9, 0), (10, 30, 3)])
def test_one_request_in_so_many_is_traced(rate, requests, traced):
    assert TracerRig(rate=rate).ask(requests) == traced


def test_every_request_is_answered_once_traced_or_not():
    t = TracerRig(rate=2)
    t.ask(5)
    assert t.answers == [ANSWER] * 5


def test_tracing_ends_when_its_count_is_reached():
    t = TracerRig(count=3)
    assert (t.ask(10), t.tracer.active, t.tracer.settings().count) == (3, False, 0)
    t.tracer.update("", {"count": 1})
    assert (t.ask(10), t.tracer.active) == (1, False)


def test_one_file_takes_all_where_there_is_no_frequency():
    t = TracerRig()
    t.ask(3)
    assert t.files() == [("t", [1], True), ("t", [2], False), ("t", [3], False)]


def test_files_with_numbers_hold_so_many_each_and_the_rest_at_the_end():
    t = TracerRig(log_frequency=2)
    t.ask(5)
    assert t.files() == [("t.0", [1, 2], True), ("t.1", [3, 4], True)]
    t.tracer.flush()
    assert t.files()[2:] == [("t.2", [5], True)]


def test_the_last_of_a_count_is_written_at_once():
    t = TracerRig(log_frequency=100, count=2)
    t.ask(5)
    assert t.files() == [("t.0", [1, 2], True)]


def test_a_models_own_settings_hold_for_it_alone_until_taken_back():
    t = TracerRig(level=("OFF",))
    t.tracer.update("m", {"level": ("TENSORS",), "rate": 2})
    assert (t.ask(4, "m"), t.ask(4, "n")) == (2, 0)
    assert t.tracer.settings("m").level == ("TENSORS",)
    assert t.tracer.settings("n").level == t.tracer.settings().level == ("OFF",)
    t.tracer.update("", {"level": ("TIMESTAMPS",), "rate": 1})
    assert (t.ask(4, "m"), t.ask(4, "n")) == (2, 4)
    t.tracer.update("m", {"rate": None})
    assert (t.tracer.settings("m").rate, t.tracer.settings("m").level) == (1, ("TENSORS",))
    t.tracer.update("m", {"level": None})
    assert t.tracer.settings("m") == t.tracer.settings()


def test_settings_of_all_are_taken_back_to_those_of_the_start():
    t = TracerRig(rate=7)
    t.tracer.update("", {"rate": 3})
    assert t.tracer.settings().rate == 3
    t.tracer.update("", {"rate": None})
    assert t.tracer.settings().rate == 7


@pytest.mark.parametrize("changes", [{"rate": 0}, {"count": -2}, {"level": ("MAX",)}, {"level": ("OFF", "TENSORS")}])
def test_wrong_settings_change_nothing(changes):
    t = TracerRig()
    for model in ("", "m"):
        with pytest.raises(ConfigError):
            t.tracer.update(model, changes)
        assert t.tracer.settings(model) == TraceConfig(file="t", level=("TIMESTAMPS",), rate=1)
    assert t.ask(3) == 3


def test_tracing_needs_a_file():
    with pytest.raises(ConfigError, match="--trace-file"):
        TraceConfig(level=("TIMESTAMPS",))


def trace(levels, outcome=ANSWER, **fields):
    return Trace(7, "m", "3", fields.get("request_id", ""), levels, X, 1.0, 2.5, outcome)


def names_of(one):
    return [record["timestamps"][0]["name"] for record in one.records() if "timestamps" in record]


def test_timestamps_are_those_of_the_request_in_their_order():
    head, *stamps = trace(("TIMESTAMPS",), request_id="r").records()
    assert head == {"id": 7, "model_name": "m", "model_version": 3, "request_id": "r"}
    assert {stamp["id"] for stamp in stamps} == {7}
    times = {stamp["timestamps"][0]["name"]: stamp["timestamps"][0]["ns"] for stamp in stamps}
    assert times == {
        "GRPC_WAITREAD_END": 1_000_000_000,
        "REQUEST_START": 1_000_000_000,
        "QUEUE_START": 1_000_000_000,
        "COMPUTE_START": 1_500_000_000,
        "COMPUTE_INPUT_END": 1_500_000_100,
        "COMPUTE_OUTPUT_START": 1_500_000_300,
        "COMPUTE_END": 1_500_000_350,
        "INFER_RESPONSE_COMPLETE": 2_500_000_000,
        "REQUEST_END": 2_500_000_000,
    }


def test_a_request_that_failed_has_a_beginning_and_an_end_and_an_answer_where_its_caller_waits():
    whole = ["GRPC_WAITREAD_END", "REQUEST_START", "QUEUE_START", "INFER_RESPONSE_COMPLETE", "REQUEST_END"]
    for outcome, names in ((QueueFull("full"), whole), (RequestCancelled("gone"), [*whole[:3], whole[4]])):
        assert names_of(trace(("TIMESTAMPS",), outcome)) == names


def test_a_call_that_is_followed_is_traced_until_its_answer_is_sent():
    finished, answers = [], []
    one = trace(("TIMESTAMPS",), None)
    traced = Traced(one, answers.append, finished.append)
    traced.follow()
    traced(ANSWER)
    assert (answers, finished) == ([ANSWER], [])
    traced.sending()
    traced.sent()
    assert finished == [one] and one.ended <= one.send_started <= one.send_ended
    assert names_of(one)[-3:] == ["REQUEST_END", "GRPC_SEND_START", "GRPC_SEND_END"]


def test_a_call_that_ends_before_its_request_is_traced_when_that_does():
    finished, answers = [], []
    one = trace(("TIMESTAMPS",), None)
    traced = Traced(one, answers.append, finished.append)
    traced.follow()
    traced.sent()
    assert finished == []
    traced(RequestCancelled("gone"))
    assert finished == [one] and len(answers) == 1
    assert names_of(one)[-1] == "REQUEST_END"


def test_a_request_that_ends_after_its_settings_were_changed_is_written():
    t = TracerRig(log_frequency=5)
    complete = t.tracer.traced(("m", "1"), "", X, 1.0, t.answers.append)
    t.tracer.update("", {"level": ("OFF",)})
    complete(ANSWER)
    assert t.files() == [("t.0", [1], True)]


def test_tensors_are_written_out():
    _, x, y = trace(("TENSORS",)).records()
    assert x == {
        "id": 7,
        "activity": "TENSOR_QUEUE_INPUT",
        "tensor": {"name": "x", "data": "1.5,-2.0", "shape": "1,2", "dtype": "FP32"},
    }
    assert (y["activity"], y["tensor"]["data"], y["tensor"]["dtype"]) == ("TENSOR_BACKEND_OUTPUT", "3", "INT64")


def test_bytes_that_are_no_text_are_written_with_escapes():
    strings = Trace(1, "m", "1", "", ("TENSORS",), {"s": np.array([b"a\xff"], object)}, 1.0, 2.0, ANSWER)
    assert list(strings.records())[1]["tensor"]["data"] == "a\\xff"


def test_the_file_is_whole_after_every_write(tmp_path):
    path = tmp_path / "t.json"
    path.write_text("of an earlier server")
    for number, anew in ((1, True), (2, False), (3, False)):
        write_traces(str(path), [trace(("TIMESTAMPS",))], anew=anew)
        records = json.loads(path.read_text())
        assert len(records) == 10 * number
    path.unlink()  # somebody takes it away
    write_traces(str(path), [trace(("TIMESTAMPS",))], anew=False)
    assert len(json.loads(path.read_text())) == 10


def test_traces_that_cannot_be_written_are_reported(tmp_path, caplog):
    write_traces(str(tmp_path / "none" / "t.json"), [trace(("TIMESTAMPS",))], anew=True)
    assert "1 traces are lost" in caplog.text


def test_a_writer_that_cannot_keep_up_loses_traces_and_says_so(tmp_path, caplog):
    path = tmp_path / "t.json"
    busy = threading.Event()
    executor = ThreadPoolExecutor(1)
    executor.submit(busy.wait)
    writer = TraceWriter(executor, max_waiting=2)
    writer.write(str(path), [trace(("TIMESTAMPS",))] * 3, True)  # nothing else waits: taken, whatever its size
    writer.write(str(path), [trace(("TIMESTAMPS",))] * 5, False)
    busy.set()
    writer.close()
    assert len(json.loads(path.read_text())) == 3 * 10
    assert "5 traces are lost: 3 others still wait to be written" in caplog.text
