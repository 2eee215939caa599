"""Up to how many rows a model's runs are sure to be quick."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto

from tests.models import make_models
from trtserve_engines.errors import ExecutionError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.scripted_engine import ScriptedEngine, echo
from trtserve_server.models.inline import quick_rows, rows_within


@pytest.mark.parametrize(
    ("run_us", "most", "rows"),
    [
        (lambda rows: 10, 32, 32),
        (lambda rows: 10, 24, 24),
        (lambda rows: 10, 1, 1),
        (lambda rows: 30 * rows, 32, 2),  # 4 would take 120
        (lambda rows: 25 * rows, 32, 2),  # 4 take the limit itself
        (lambda rows: 24 * rows, 32, 4),
        (lambda rows: 24 * rows, 3, 3),
        (lambda rows: 100, 32, 0),
        (lambda rows: 200 if rows == 4 else 10, 32, 2),  # nothing behind a size that is too slow counts
    ],
)
def test_rows_within_the_limit(run_us, most, rows):
    assert rows_within(100e-6, most, lambda rows: run_us(rows) / 1e6) == rows


def quick_rows_of(proto, folder, max_batch_size=8, limit_s=60.0, compute=echo, **engine):
    model = read_onnx_model(make_models.save(proto, folder / "m.onnx"))
    scripted = ScriptedEngine(model.signature, compute)
    for name, value in engine.items():
        setattr(scripted, name, value)
    rows = quick_rows(scripted, model, max_batch_size, limit_s)
    assert scripted.open_contexts == 0
    return rows


@pytest.mark.parametrize("max_batch_size", [0, 1, 6, 8])
def test_a_model_of_fixed_sizes_is_measured_up_to_its_largest_batch(max_batch_size, tmp_path):
    shape = ("batch", 4) if max_batch_size else (3, 4)
    assert quick_rows_of(make_models.add(shape), tmp_path, max_batch_size) == max(1, max_batch_size)


def test_what_an_input_could_make_longer_is_not_measured(tmp_path):
    assert quick_rows_of(make_models.add(("batch", "width")), tmp_path) == 0
    assert quick_rows_of(make_models.add(("batch", 4)), tmp_path, max_batch_size=0) == 0
    assert quick_rows_of(make_models.identity(TensorProto.STRING, ("batch", 4)), tmp_path) == 0


def test_a_model_that_may_loop_is_not_measured(tmp_path):
    model = replace(
        read_onnx_model(make_models.save(make_models.scale(2.0), tmp_path / "m.onnx")), has_control_flow=True
    )
    assert quick_rows(ScriptedEngine(model.signature, echo), model, 8, 60.0) == 0


def test_neither_is_what_runs_elsewhere_or_where_nothing_is_to_be_quick(tmp_path):
    assert quick_rows_of(make_models.scale(2.0), tmp_path, device="gpu:0") == 0
    assert quick_rows_of(make_models.scale(2.0), tmp_path, limit_s=0) == 0
    assert quick_rows_of(make_models.scale(2.0), tmp_path, limit_s=1e-9) == 0


def test_a_model_that_refuses_made_up_inputs_is_not_quick(tmp_path):
    def refuses_many(inputs):
        if len(np.asarray(inputs["x"])) > 2:
            raise ExecutionError("no")
        return echo(inputs)

    assert quick_rows_of(make_models.scale(2.0), tmp_path, compute=refuses_many) == 0
