"""Scripts of models without a file: what they write, what is refused, what the engine then does."""

import numpy as np
import pytest

from trtserve_engines.config import ConfigError
from trtserve_engines.errors import ExecutionError
from trtserve_engines.script import ScriptConfig, engine_from_script, parse_script
from trtserve_engines.signature import DYNAMIC


def test_a_script_is_its_name_and_its_options():
    assert parse_script("echo") == ScriptConfig(name="echo")
    written = "m:latency_ms=1/2.5:row_ms=0.5:stall_batch=3:stall_ms=9:fail_every=2:shape=4x5:type=int8"
    written += ":max_batch_size=0:instances=2"
    assert parse_script(written) == ScriptConfig("m", (1.0, 2.5), 0.5, 3, 9.0, 2, "4x5", "int8", 0, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "name = ''"),
        ("a b", "name = 'a b'"),
        ("m:latency", "'latency' is unknown"),
        ("m:speed=3", "options are name, latency_ms"),
        ("m:latency_ms=fast", "latency_ms = 'fast'; wanted is a number"),
        ("m:latency_ms=-1", "at least 0"),
        ("m:latency_ms=nan", "at least 0"),
        ("m:latency_ms=", "latency_ms = ''"),
        ("m:instances=0", "instances = 0"),
        ("m:fail_every=-1", "fail_every = -1"),
        ("m:type=float8", "float32, float64"),
        ("m:shape=3xa", "sizes with x between them"),
        ("m:shape=0", "sizes with x between them"),
        ("m:shape=3x4", "begins with -1"),
    ],
)
def test_mistakes_are_named(text, words):
    with pytest.raises(ConfigError) as error:
        parse_script(text)
    assert words in str(error.value)


def run(engine, rows=1):
    context = engine.create_context(batched=True)
    return context.run([{"x": np.full((rows, 16), 3, np.float32)}])


def test_the_engine_has_the_tensors_of_its_script_and_answers_x_as_y():
    engine = engine_from_script(parse_script("m:shape=-1x16"))
    assert engine.signature.inputs[0].shape == (DYNAMIC, 16)
    assert engine.max_rows == 8
    assert run(engine, 2).outputs["y"].tolist() == np.full((2, 16), 3).tolist()


def test_latencies_come_in_turn_grow_with_rows_and_stall_once():
    engine = engine_from_script(parse_script("m:latency_ms=10/20:row_ms=2:stall_batch=3:stall_ms=500"))
    assert [round(1e3 * engine.latency_s(rows)) for rows in (1, 4, 1, 1, 1)] == [12, 28, 512, 22, 12]


def test_every_nth_batch_fails():
    engine = engine_from_script(parse_script("m:fail_every=3"))
    outcomes = []
    for _ in range(6):
        try:
            run(engine)
            outcomes.append("ok")
        except ExecutionError as error:
            outcomes.append("fail_every = 3" in str(error))
    assert outcomes == ["ok", "ok", True, "ok", "ok", True]


def test_the_time_of_a_script_counts_as_that_of_the_model():
    result = run(engine_from_script(parse_script("m:latency_ms=20")))
    assert result.compute_ns >= 20e6 > result.input_ns
