"""What an ensemble is made of: order, inputs and outputs, types, and every way in which it can be wrong."""

from __future__ import annotations

import re
import timeit
from functools import partial
from typing import Any

import numpy as np
import pytest

from trtserve_engines.config import ConfigError
from trtserve_engines.signature import Signature, TensorSpec
from trtserve_server.config import ModelConfig, StepConfig, TensorConfig
from trtserve_server.models.ensemble_graph import batch_size_of, graph_of, signature_of

FLOAT, INT = np.dtype(np.float32), np.dtype(np.int64)


class Part:
    """A model as the graph sees it."""

    def __init__(self, name: str, inputs: dict[str, Any], outputs: dict[str, Any], max_batch_size: int = 8) -> None:
        self.name = name
        self.max_batch_size = max_batch_size
        self.signature = Signature(
            tuple(TensorSpec(each, *spec) for each, spec in inputs.items()),
            tuple(TensorSpec(each, *spec) for each, spec in outputs.items()),
        )


def step(model: str, inputs: dict[str, str], outputs: dict[str, str]) -> StepConfig:
    return StepConfig(model, 0, inputs, outputs)


def config(*steps: StepConfig, **fields: Any) -> ModelConfig:
    return ModelConfig(name="e", ensemble=steps, **fields)


CHAIN = (step("a", {"x": "in"}, {"y": "mid"}), step("b", {"x": "mid"}, {"y": "out"}))
DIAMOND = (
    step("join", {"l": "left", "r": "right"}, {"y": "out"}),
    step("a", {"x": "in"}, {"y": "left"}),
    step("a", {"x": "in"}, {"y": "right"}),
)
ROWS = (FLOAT, (-1, 4))


def part(name: str, given: Any = ROWS, made: Any = ROWS, **fields: Any) -> Part:
    return Part(name, {"x": given}, {"y": made}, **fields)


def test_inputs_outputs_and_order_follow_from_the_steps() -> None:
    graph = graph_of(config(*DIAMOND))
    assert (graph.inputs, graph.outputs) == (("in",), ("out",))
    assert graph.order.index(0) == 2


def test_outputs_can_be_chosen_and_include_what_other_steps_take() -> None:
    graph = graph_of(config(*CHAIN, outputs=(TensorConfig("mid"), TensorConfig("out"))))
    assert graph.outputs == ("mid", "out")


@pytest.mark.parametrize(
    ("steps", "fields", "words"),
    [
        (
            (step("a", {"x": "t"}, {"y": "u"}), step("b", {"x": "u"}, {"y": "t"})),
            {},
            "wait for each other: step 1 takes 't' from step 2, step 2 takes 'u' from step 1",
        ),
        ((step("a", {"x": "t"}, {"y": "t"}),), {}, "wait for each other: step 1 takes 't' from step 1"),
        (
            (
                step("z", {"x": "in"}, {"y": "o"}),
                step("a", {"x": "t", "z": "o"}, {"y": "u"}),
                step("b", {"x": "u"}, {"y": "t"}),
            ),
            {"outputs": (TensorConfig("o"),)},
            "step 2 takes 't' from step 3, step 3 takes 'u' from step 2",
        ),
        ((*CHAIN, step("c", {"x": "in"}, {"y": "mid"})), {}, "steps 1 and 3 both give tensor 'mid'"),
        (CHAIN, {"inputs": (TensorConfig("other"),)}, "step 1 .* takes 'x' from tensor 'in', which no step gives"),
        (CHAIN, {"inputs": (TensorConfig("in"), TensorConfig("mid"))}, "'mid' is an input of the ensemble and"),
        (CHAIN, {"outputs": (TensorConfig("nothing"),)}, "no step gives output 'nothing'.*'mid', 'out'"),
        ((step("a", {}, {"y": "out"}),), {}, "step 1 .* maps no inputs"),
        ((step("a", {"x": "in"}, {}),), {}, "step 1 .* maps no outputs"),
    ],
)
def test_a_graph_that_cannot_be_is_refused(steps: Any, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        graph_of(config(*steps, **fields))


def chain_of(length: int) -> ModelConfig:
    return config(*(step("a", {"x": f"t{number}"}, {"y": f"t{number + 1}"}) for number in reversed(range(length))))


def test_a_long_chain_takes_time_by_its_length() -> None:
    def seconds(length: int) -> float:
        return min(timeit.repeat(partial(graph_of, chain_of(length)), number=1, repeat=3))

    assert graph_of(chain_of(3)).order == (2, 1, 0)
    assert seconds(2000) < 100 * seconds(200)  # ten times as many steps; what looks at all of them takes 100 times


def test_a_tensor_knows_its_takers() -> None:
    graph = graph_of(config(step("a", {"l": "in", "r": "in"}, {"y": "mid"}), *CHAIN[1:]))
    assert graph.takers == {"in": [0], "mid": [1]}


def test_a_step_needs_a_model() -> None:
    with pytest.raises(ConfigError, match="names no model"):
        StepConfig()


def signature(given: ModelConfig, *parts: Part, max_batch_size: int = 8) -> Signature:
    return signature_of(graph_of(given), given, parts, max_batch_size)


def test_the_signature_follows_from_the_models() -> None:
    made = signature(config(*CHAIN), part("a", made=(INT, (-1, 2, -1))), part("b", given=(INT, (-1, -1, 3)), made=ROWS))
    assert made.inputs == (TensorSpec("in", FLOAT, (-1, 4)),)
    assert made.outputs == (TensorSpec("out", FLOAT, (-1, 4)),)


def test_what_one_model_knows_of_a_tensor_narrows_what_another_takes() -> None:
    steps = (step("a", {"x": "in"}, {"y": "one"}), step("b", {"x": "in"}, {"y": "two"}))
    made = signature(config(*steps), part("a", given=(FLOAT, (-1, -1))), part("b", given=(FLOAT, (-1, 7))))
    assert made.inputs == (TensorSpec("in", FLOAT, (-1, 7)),)


def test_configured_tensors_narrow_too_and_an_unused_input_is_taken() -> None:
    given = config(
        *CHAIN,
        inputs=(TensorConfig("in", "FP32", (4,)), TensorConfig("unused", "INT64", (3,))),
        outputs=(TensorConfig("out", "", (5,)),),
    )
    made = signature(given, part("a"), part("b", made=(FLOAT, (-1, -1))))
    assert made.inputs[1] == TensorSpec("unused", INT, (-1, 3))
    assert made.outputs == (TensorSpec("out", FLOAT, (-1, 5)),)


@pytest.mark.parametrize(
    ("given", "parts", "words"),
    [
        (
            config(*CHAIN),
            (part("a", made=(INT, (-1, 4))), part("b")),
            r"tensor 'mid': input 'x' of step 2 .* is FP32 \[-1, 4\], output 'y' of step 1 .* INT64 \[-1, 4\]",
        ),
        (config(*CHAIN), (part("a", made=(FLOAT, (-1, 5))), part("b")), r"FP32 \[-1, 4\].* FP32 \[-1, 5\]"),
        (config(*CHAIN), (part("a", made=(FLOAT, (-1, 4, 1))), part("b")), r"FP32 \[-1, 4\].* FP32 \[-1, 4, 1\]"),
        (config(*CHAIN), (Part("a", {"z": ROWS}, {"y": ROWS}), part("b")), "step 1 .* has no input 'x'; it has 'z'"),
        (config(*CHAIN), (Part("a", {"x": ROWS}, {"z": ROWS}), part("b")), "step 1 .* has no output 'y'; it has 'z'"),
        (
            config(*CHAIN),
            (part("a"), Part("b", {"x": ROWS, "z": ROWS}, {"y": ROWS})),
            "step 2 .* input 'z' of the model gets no tensor",
        ),
        (
            config(*CHAIN, inputs=(TensorConfig("in", "INT64", (4,)),)),
            (part("a"), part("b")),
            r"input 'x' of step 1 .* FP32 \[-1, 4\], the ensemble's configuration is INT64 \[-1, 4\]",
        ),
        (
            config(*CHAIN, outputs=(TensorConfig("out", "FP32", (5,)),)),
            (part("a"), part("b")),
            r"the ensemble's configuration is FP32 \[-1, 5\], output 'y' of step 2 .* FP32 \[-1, 4\]",
        ),
        (config(*CHAIN, inputs=(TensorConfig("in"), TensorConfig("z"))), (part("a"), part("b")), "'z' is taken by no"),
    ],
)
def test_models_that_do_not_fit_each_other_are_refused(given: ModelConfig, parts: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        signature(given, *parts)


@pytest.mark.parametrize(
    ("configured", "sizes", "wanted", "reason"),
    [
        (None, (8, 4), 4, r"step 2 \(model 'b'\) with at most 4"),
        (None, (8, 0), 0, r"step 2 \(model 'b'\) is not batched"),
        (4, (8, 4), 4, "the configuration says so"),
        (2, (8, 0), 2, "the configuration says so"),
        (0, (8, 4), 0, "the configuration says so"),
    ],
)
def test_the_batch_size(configured: int | None, sizes: tuple[int, int], wanted: int, reason: str) -> None:
    given = config(*CHAIN, max_batch_size=configured)
    parts = [part(name, max_batch_size=size) for name, size in zip("ab", sizes, strict=True)]
    size, why = batch_size_of(graph_of(given), given, parts)
    assert size == wanted
    assert re.search(reason, why)


def test_a_batch_size_above_that_of_a_step_is_refused() -> None:
    given = config(*CHAIN, max_batch_size=6)
    with pytest.raises(ConfigError, match="max_batch_size = 6, but step 2 .* takes at most 4 rows"):
        batch_size_of(graph_of(given), given, [part("a"), part("b", max_batch_size=4)])
