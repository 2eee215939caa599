"""What a batch costs beside its rows: the rule as a table, how it is measured, and what follows for batches."""

import math
import time

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.models import make_models
from tests.support.batcher_rig import Rig
from trtserve_engines.errors import ExecutionError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.options import build
from trtserve_engines.scripted_engine import ScriptedEngine, echo
from trtserve_engines.step import Watch
from trtserve_server.config import ModelConfig, ServerConfig
from trtserve_server.models import loader
from trtserve_server.models.batch_cost import fixed_rows_from_times, fixed_rows_of
from trtserve_server.models.repository import ModelVersion
from trtserve_server.scheduling.policy import BatchPolicy

MS = 1e-3


@pytest.mark.parametrize(
    ("one_ms", "several_ms", "rows", "fixed_rows"),
    [
        (10.0, 80.0, 8, 0.02),  # n rows take n times as long: what remains is the change of threads
        (10.0, 87.0, 8, 0.2 / 11),  # a larger batch even loses
        (1.0, 8.0, 8, 0.2),
        (0.01, 0.08, 8, 20),
        (11.0, 81.0, 8, 0.12),  # 1 ms beside the rows
        (20.0, 90.0, 8, 1.02),
        (10.0, 20.0, 2, 0.02),
        (10.0, 11.0, 2, 9.2),
        (10.0, 10.0, 8, math.inf),  # rows beside the first cost nothing
        (10.0, 9.0, 8, math.inf),
    ],
)
def test_what_a_batch_costs_is_counted_in_rows(one_ms, several_ms, rows, fixed_rows):
    assert fixed_rows_from_times(one_ms * MS, several_ms * MS, rows) == pytest.approx(fixed_rows)


def computing(fixed_s, row_s):
    """Uses so much CPU for each batch, and for each of its rows."""

    def compute(inputs):
        until = time.thread_time() + fixed_s + row_s * len(inputs["x"])
        while time.thread_time() < until:
            pass
        return {"y": inputs["x"]}

    return compute


def model_of(proto, folder):
    return read_onnx_model(make_models.save(proto, folder / "m.onnx"))


def test_a_model_whose_rows_are_computed_one_after_another_needs_no_large_batch(tmp_path):
    model = model_of(make_models.scale(2.0), tmp_path)
    engine = ScriptedEngine(model.signature, computing(0.0, 5 * MS))
    assert 2 <= BatchPolicy(64, fixed_rows=fixed_rows_of(engine, model, 64)).most_rows <= 8
    assert engine.open_contexts == 0
    assert max(engine.batches) == 8


def test_a_model_that_gains_by_each_row_is_given_all(tmp_path):
    model = model_of(make_models.scale(2.0), tmp_path)
    for compute in (computing(5 * MS, 0.5 * MS), echo):
        engine = ScriptedEngine(model.signature, compute)
        assert BatchPolicy(64, fixed_rows=fixed_rows_of(engine, model, 64)).most_rows == 64


def failing(inputs):
    raise ExecutionError("made-up inputs do not fit")


def dynamic_width():
    return make_models.model(
        [helper.make_node("Relu", ["x"], ["y"])],
        [make_models.tensor("x", ["batch", "width"])],
        [make_models.tensor("y", ["batch", "width"])],
    )


def words():
    x, y = (make_models.tensor(name, ["batch", 4], TensorProto.STRING) for name in "xy")
    return make_models.model([helper.make_node("Identity", ["x"], ["y"])], [x], [y])


def choosing():
    """Which branch it takes, and so how long, depends on the values."""
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["chosen"])],
        "branch",
        [],
        [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["condition"], to=TensorProto.BOOL),
        helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch),
    ]
    x, y = (make_models.tensor(name, ["batch", 4]) for name in "xy")
    return make_models.model(nodes, [x], [y])


@pytest.mark.parametrize(
    ("proto", "compute", "changes", "max_batch_size"),
    [
        (make_models.scale(2.0), failing, {}, 64),
        (make_models.scale(2.0), computing(0.0, 5 * MS), {"device": "gpu:0"}, 64),
        (make_models.scale(2.0), computing(0.0, 5 * MS), {}, 1),
        (make_models.scale(2.0), computing(0.0, 5 * MS), {}, 0),
        (words(), computing(0.0, 5 * MS), {}, 64),
        (dynamic_width(), computing(0.0, 5 * MS), {}, 64),
        (choosing(), computing(0.0, 5 * MS), {}, 64),
    ],
)
def test_what_cannot_be_known_is_not_guessed(proto, compute, changes, max_batch_size, tmp_path):
    model = model_of(proto, tmp_path)
    engine = ScriptedEngine(model.signature, compute)
    for name, value in changes.items():
        setattr(engine, name, value)
    assert fixed_rows_of(engine, model, max_batch_size) == math.inf
    assert engine.open_contexts == 0


@pytest.mark.parametrize(
    ("batching", "limited"),
    [({}, True), ({"preferred_batch_sizes": [4]}, False), ({"max_queue_delay_us": 100}, False)],
)
def test_who_asks_for_batches_gets_them(batching, limited, tmp_path, monkeypatch):
    path = tmp_path / "m" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    make_models.save(make_models.scale(2.0), path)
    engine = ScriptedEngine(read_onnx_model(path).signature, computing(0.0, 5 * MS))
    monkeypatch.setattr(loader, "open_engine", lambda *arguments, **options: engine)
    config = build(ModelConfig, {"name": "m", "max_batch_size": 64, "batching": batching}, "test")
    loaded = loader.load_model(ModelVersion("m", "1", path, config), ServerConfig(), Watch(may_build=False))
    assert (loaded.fixed_rows < 0.1) == limited


def test_seven_that_wait_are_shared_out():
    rig = Rig(fixed_rows=0.02, instances=2)
    for value in range(7):
        rig.submit(value)
    rig.reactor.run()
    assert [batch.rows for batch in rig.reactor.runs] == [2, 2]
    assert rig.batcher.waiting == 3
    rig.instances[1].finish()
    rig.instances[0].finish()
    rig.reactor.run()
    assert [batch.rows for batch in rig.reactor.runs] == [2, 2, 2, 1]
    for instance in rig.instances:
        instance.finish()
    assert all(rig.answered(value) for value in range(7))


def test_a_request_with_more_rows_than_gain_anything_is_run_whole():
    rig = Rig(fixed_rows=0.02, instances=2)
    rig.submit(1, rows=5)
    rig.submit(2, rows=1)
    rig.reactor.run()
    assert [batch.rows for batch in rig.reactor.runs] == [5, 1]
    for instance in rig.instances:
        instance.finish()
    assert rig.answered(1, 5)
    assert rig.answered(2)
    np.testing.assert_array_equal(rig.answer(2).outputs["x"], [[2]])
