"""The engine that follows a script: that it does what the script says, and counts."""

import numpy as np
import pytest

from trtserve_engines.errors import ExecutionError
from trtserve_engines.scripted_engine import ScriptedEngine, echo
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec

X = TensorSpec("x", np.dtype(np.float32), (DYNAMIC,))
SIGNATURE = Signature((X,), (X,))


def part(*values):
    return {"x": np.array(values, np.float32)}


def test_batches_are_counted_in_rows_and_in_order():
    engine = ScriptedEngine(SIGNATURE)
    context = engine.create_context(batched=True)
    context.run([part(1), part(2, 3)])
    context.run([part()])
    context.run([part(1, 2)])
    assert engine.batches == [3, 0, 2]


def test_a_batch_without_inputs_counts_as_one_row():
    engine = ScriptedEngine(Signature((), (X,)), lambda inputs: part(1))
    assert engine.create_context(batched=False).run([{}]).outputs["x"].tolist() == [1]
    assert engine.batches == [1]


def test_the_script_decides_which_batches_fail():
    engine = ScriptedEngine(SIGNATURE, failure=lambda number: OSError(f"no {number}") if number == 1 else None)
    context = engine.create_context(batched=True)
    context.run([part(1)])
    with pytest.raises(ExecutionError, match="the script fails batch 1: no 1") as caught:
        context.run([part(2)])
    assert isinstance(caught.value.__cause__, OSError)
    assert context.run([part(3)]).outputs["x"].tolist() == [3]
    assert engine.batches == [1, 1, 1]


def test_latency_is_asked_for_the_rows_and_spent_before_the_answer():
    asked = []

    def latency_s(rows):
        asked.append(rows)
        return rows / 1000

    context = ScriptedEngine(SIGNATURE, latency_s=latency_s).create_context(batched=True)
    result = context.run([part(1, 2), part(3)])
    assert asked == [3]
    assert result.input_ns + result.compute_ns + result.output_ns >= 3_000_000


def test_contexts_and_the_end_are_counted():
    engine = ScriptedEngine(SIGNATURE, max_rows=7)
    first, second = (engine.create_context(batched=True) for _ in range(2))
    assert (engine.open_contexts, engine.closed, engine.max_rows) == (2, False, 7)
    first.close()
    assert engine.open_contexts == 1
    second.close()
    engine.close()
    assert (engine.open_contexts, engine.closed) == (0, True)


def test_the_script_computes_from_the_gathered_rows():
    engine = ScriptedEngine(SIGNATURE, lambda inputs: {"x": inputs["x"].cumsum()})
    assert engine.create_context(batched=True).run([part(1, 2), part(3)]).outputs["x"].tolist() == [1, 3, 6]


def test_echo_gives_copies():
    inputs = part(1)
    assert not np.shares_memory(echo(inputs)["x"], inputs["x"])
