"""The accuracy gate: what is measured, what is refused, and what the error says."""

import json

import ml_dtypes
import numpy as np
import pytest

from trtserve_engines.accuracy import AccuracyReport, OutputAccuracy, Tolerance, check, compare
from trtserve_engines.config import ConfigError
from trtserve_engines.engine import BatchResult
from trtserve_engines.errors import AccuracyError
from trtserve_engines.signature import Signature, TensorSpec

FLOAT = np.dtype(np.float32)


class Function:
    """An engine whose only output is a function of its only input."""

    def __init__(self, function, dtype=FLOAT, output=FLOAT):
        self.signature = Signature(
            (TensorSpec("x", np.dtype(dtype), (-1, 4)),), (TensorSpec("y", np.dtype(output), (-1, 4)),)
        )
        self._function = function
        self.open_contexts = 0

    def create_context(self, *, batched):
        assert not batched
        self.open_contexts += 1
        return self

    def run(self, parts):
        (part,) = parts
        self.signature.check(part)
        return BatchResult({"y": self._function(part["x"])}, 0, 0, 0)

    def close(self):
        self.open_contexts -= 1


def samples(count=4, seed=0):
    random = np.random.default_rng(seed)
    return [{"x": random.standard_normal((3, 4)).astype(np.float32)} for _ in range(count)]


def measured(reference, candidate, given=None):
    engines = Function(reference), Function(candidate)
    report = compare(*engines, given or samples(), made_up=True)
    assert [engine.open_contexts for engine in engines] == [0, 0]
    (output,) = report.outputs
    return output


def same(x):
    return x


def test_equal_engines_are_equal():
    output = measured(same, same)
    assert (output.max_error, output.mean_error, output.top1, output.wrong_elements) == (0, 0, 1, 0)
    assert output.cosine == pytest.approx(1) and output.name == "y"


def test_errors_are_measured_in_the_outputs_units():
    output = measured(same, lambda x: x + np.float32([0.5, 0, 0, 0]))
    assert output.max_error == pytest.approx(0.5, abs=1e-6) and output.mean_error == pytest.approx(0.125, abs=1e-6)
    assert output.largest == pytest.approx(max(np.abs(sample["x"]).max() for sample in samples()))


def test_the_worst_sample_counts_and_the_mean_is_over_all():
    calls = []
    output = measured(same, lambda x: x + (calls.append(0) or len(calls) == 2) * np.float32(8), samples(4))
    assert output.max_error == pytest.approx(8, abs=1e-5) and output.mean_error == pytest.approx(2, abs=1e-5)


@pytest.mark.parametrize(
    ("candidate", "cosine"),
    [(lambda x: 3 * x, 1), (lambda x: -x, -1), (np.zeros_like, 0)],
)
def test_the_cosine_sees_the_direction(candidate, cosine):
    assert measured(same, candidate).cosine == pytest.approx(cosine)


def test_outputs_that_are_all_zero_agree_with_each_other_only():
    assert measured(np.zeros_like, np.zeros_like).cosine == 1
    assert measured(np.zeros_like, np.ones_like).cosine == 0


def test_agreement_is_of_the_largest_element_of_each_row():
    flipped = measured(same, lambda x: x[:, ::-1])
    rows = np.concatenate([sample["x"] for sample in samples()])
    assert flipped.top1 == np.mean(rows.argmax(1) == rows[:, ::-1].argmax(1))


def test_integers_agree_where_they_are_equal():
    label = lambda x: (x > 0).astype(np.int64)
    other = lambda x: np.where(np.arange(4) == 0, 1 - label(x), label(x))
    assert measured(label, other).top1 == 0.75


def test_a_nan_where_the_reference_is_finite_is_counted():
    def broken(x):
        return np.where(np.arange(4) == 1, np.float32(np.nan), x)

    output = measured(same, broken)
    assert output.wrong_elements == 12 and output.max_error == 0


def test_what_is_not_finite_in_the_reference_says_nothing():
    def infinite(x):
        return np.where(np.arange(4) == 1, np.float32(np.inf), x)

    output = measured(infinite, lambda x: np.where(np.arange(4) == 1, 65504, x))
    assert (output.wrong_elements, output.max_error) == (0, 0)


def test_another_shape_is_refused_at_once():
    with pytest.raises(AccuracyError, match=r"output 'y' has the shape \[3, 2\]; the reference's is \[3, 4\]"):
        measured(same, lambda x: x[:, :2])


def test_the_ends_of_the_candidate_may_have_other_types():
    candidate = Function(lambda x: x, dtype=ml_dtypes.bfloat16, output=ml_dtypes.bfloat16)
    (output,) = compare(Function(same), candidate, samples(), made_up=False).outputs
    assert 0 < output.max_error < 0.02 and output.cosine > 0.9999


def report(**values):
    good = {"max_error": 1e-3, "mean_error": 1e-4, "cosine": 0.9999, "top1": 1.0, "largest": 2.0, "wrong_elements": 0}
    return AccuracyReport((OutputAccuracy("y", **{**good, **values}),), 8, made_up=True)


@pytest.mark.parametrize(
    ("values", "tolerance", "reason"),
    [
        ({"cosine": 0.95}, {}, "output 'y': cosine 0.950000, least allowed is 0.999"),
        ({"cosine": float("nan")}, {}, "cosine nan"),
        ({"wrong_elements": 3}, {}, "output 'y': 3 elements are NaN or infinite"),
        ({}, {"max_error": 1e-4}, r"max error 0.001, largest allowed is 0.0001 \(largest value 2\)"),
        ({}, {"max_mean_error": 1e-5}, "mean error 0.0001, largest allowed is 1e-05"),
        ({"top1": 0.5}, {"min_top1": 0.9}, "top-1 agreement 50.00%, least allowed is 90.00%"),
        ({"cosine": 0.9, "top1": 0.5}, {"min_top1": 0.9}, "cosine 0.9.*; output 'y': top-1"),
    ],
)
def test_an_engine_beyond_the_tolerance_is_refused_with_output_and_amount(values, tolerance, reason):
    with pytest.raises(AccuracyError, match=reason):
        check(report(**values), Tolerance(**tolerance), "fp16")


@pytest.mark.parametrize(
    ("values", "tolerance", "precision"),
    [
        ({}, {}, "fp32"),
        ({"cosine": 0.985}, {}, "int8"),
        ({"cosine": 0.7}, {"min_cosine": 0.5}, "fp32"),
        ({}, {"max_error": 1e-3, "max_mean_error": 1e-4, "min_top1": 1.0}, "fp32"),
        ({"top1": None}, {"min_top1": 1.0}, "fp32"),
    ],
)
def test_an_engine_within_the_tolerance_passes(values, tolerance, precision):
    check(report(**values), Tolerance(**tolerance), precision)


def test_a_report_can_be_stored_and_read():
    assert json.loads(json.dumps(report().to_json()))["outputs"][0]["cosine"] == 0.9999
    assert str(report()) == (
        "accuracy on 8 made-up samples:\n"
        "y: max error 0.001, mean 0.0001 (largest value 2), cosine 0.999900, top-1 agreement 100.00%"
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"min_cosine": 1.5}, "min_cosine = 1.5; it must be at most 1"),
        ({"min_top1": -0.1}, "min_top1 = -0.1; it must be at least 0"),
        ({"accuracy_runs": 0}, "accuracy_runs = 0"),
    ],
)
def test_a_tolerance_checks_itself(options, reason):
    with pytest.raises(ConfigError, match=reason):
        Tolerance(**options)
