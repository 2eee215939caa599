"""trtserve-client: what each command prints for people and as JSON, and the exit code and one line of each error."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.unit.client.command import Run, failed
from trtserve_client import cli
from trtserve_protos import oip


def test_health(run: Run, server: Any) -> None:
    assert run("health") == (0, "server: SERVING\n", "")
    assert run("health", "--service", "echo") == (1, "echo: NOT_SERVING\n", "")
    code, out, _ = run("health", "--json")
    assert code == 0 and json.loads(out) == {"service": "", "status": "SERVING"}
    failed(run("health", "--service", "nope"), 1, "NOT_FOUND: unknown service")


def test_models(run: Run, server: Any) -> None:
    assert run("models") == (
        0,
        "name    version  state        reason\necho    1        READY\nbroken  3        UNAVAILABLE  file is missing\n",
        "",
    )
    models = json.loads(run("--json", "models")[1])
    assert models[0] == {"name": "echo", "version": "1", "state": "READY", "reason": ""}
    server.answers["RepositoryIndex"] = lambda request, context: b""
    assert run("models")[1] == "the server knows no models\n"


def test_model(run: Run, server: Any) -> None:
    assert run("model", "echo") == (
        0,
        "name      echo\n"
        "versions  1\n"
        "state     1 READY\n"
        "platform  echo\n"
        "\n"
        "input  datatype  shape\n"
        "x      FP32      [-1, 2]\n"
        "\n"
        "output  datatype  shape\n"
        "x       FP32      [-1, 2]\n",
        "",
    )
    document = json.loads(run("model", "echo", "--version", "1", "--json")[1])
    tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
    assert document["inputs"] == document["outputs"] == [tensor] and document["state"] == "1 READY"
    failed(run("model", "nope"), 1, "model 'nope': NOT_FOUND", "repository_index() lists the models")


def test_model_shows_what_the_server_says_beyond_the_protocol(run: Run, server: Any) -> None:
    server.models["echo"].parameters["max_batch_size"].int64_param = 0
    server.models["echo"].parameters["batching_reason"].string_param = "its rows differ"
    assert ("platform         echo\nbatching_reason  its rows differ\nmax_batch_size   0\n\n") in run("model", "echo")[
        1
    ]
    document = json.loads(run("model", "echo", "--json")[1])
    assert document["parameters"] == {"max_batch_size": 0, "batching_reason": "its rows differ"}


def test_the_state_without_an_index_is_readiness(run: Run, server: Any) -> None:
    del server.answers["RepositoryIndex"]
    assert "state     READY\n" in run("model", "echo")[1]
    server.answers["ModelReady"] = lambda request, context: b""
    assert "state     UNAVAILABLE\n" in run("model", "echo")[1]


def test_infer_prints_arrays(run: Run) -> None:
    assert run("infer", "echo", "--input", "x=[[1, 2.5]]") == (0, "x  FP32 [1, 2]\n[[1.  2.5]]\n", "")
    document = json.loads(run("infer", "echo", "--input", "x=[[1, 2.5]]", "--json")[1])
    assert document == {
        "model": "echo",
        "version": "1",
        "id": "",
        "parameters": {},
        "outputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[1.0, 2.5]]}],
    }


def test_infer_sends_what_it_is_told(run: Run, server: Any) -> None:
    server.serve("echo", [("x", "FP32", [-1]), ("y", "INT64", [])])
    words = ["--parameter", "priority=1", "--parameter", "f=1.5", "--parameter", "b=true", "--parameter", "s=a=b"]
    words += ["--parameter", "n=null", "--output", "y", "--version", "1", "--metadata", "authorization=Bearer t"]
    code, out, _ = run("infer", "echo", "--input", "x=[1]", "--input", "y=7", *words)
    assert (code, out) == (0, "y  INT64 []\n7\n")
    (request,) = server.requests
    assert request.model_version == "1" and [output.name for output in request.outputs] == ["y"]
    parameters = request.parameters
    assert parameters["priority"].int64_param == 1 and parameters["f"].double_param == 1.5
    assert parameters["b"].bool_param is True
    assert parameters["s"].string_param == "a=b" and parameters["n"].string_param == "null"
    assert server.headers["authorization"] == "Bearer t"


def test_infer_reads_files(run: Run, tmp_path: Path) -> None:
    array = np.array([[3, 4]], np.float32)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "one.npz", any=array)
    np.savez(tmp_path / "two.npz", x=array, other=array)
    (tmp_path / "a.json").write_text("[[3, 4]]")
    for name in ("a.npy", "one.npz", "two.npz", "a.json"):
        assert run("infer", "echo", "--input", f"x=@{tmp_path / name}")[:2] == (0, "x  FP32 [1, 2]\n[[3. 4.]]\n")


def test_long_arrays_and_texts_are_shown_sensibly(run: Run, server: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1000, 2), np.float32))
    out = run("infer", "echo", "--input", f"x=@{tmp_path}/a.npy")[1]
    assert "[1000, 2]" in out and "..." in out and len(out.splitlines()) < 12
    server.serve("echo", [("x", "BYTES", [-1])])
    assert run("infer", "echo", "--input", 'x=["a", "é"]')[1] == "x  BYTES [2]\n['a' 'é']\n"
    assert json.loads(run("infer", "echo", "--input", 'x=["é"]', "--json")[1])["outputs"][0]["data"] == ["é"]


def test_json_has_no_numbers_that_json_lacks(run: Run, server: Any) -> None:
    server.serve("echo", [("x", "FP16", [-1]), ("i", "UINT8", []), ("b", "BOOL", [])])
    words = ["--input", "x=[NaN, Infinity, -Infinity, 1]", "--input", "i=200", "--input", "b=true"]
    outputs = json.loads(run("infer", "echo", *words, "--json")[1], parse_constant=pytest.fail)["outputs"]
    assert [output["data"] for output in outputs] == [["NaN", "Infinity", "-Infinity", 1.0], 200, True]


def test_top_asks_for_classes(run: Run, server: Any) -> None:
    server.serve("echo", [("x", "FP32", [-1, 3])], [("x", "FP32", [-1, 3])])
    code, out, _ = run("infer", "echo", "--input", "x=[[0.1, 0.7, 0.2]]", "--top", "2")
    assert (code, out) == (0, "x\nvalue  index  label\n0.7    1      label 1\n0.2    2      label 2\n")
    out = run("infer", "echo", "--input", "x=[[0.1, 0.7, 0.2], [3, 2, 1]]", "--top", "1")[1]
    assert out == "x\nrow  value  index  label\n0    0.7    1      label 1\n1    3      0      label 0\n"
    document = json.loads(run("infer", "echo", "--input", "x=[[0.25, 0.5, 0]]", "--top", "1", "--json")[1])
    assert document["outputs"][0]["classes"] == [[{"value": 0.5, "index": 1, "label": "label 1"}]]


def test_a_server_without_classification_shows_its_arrays(run: Run, server: Any) -> None:
    response = oip.ModelInferResponse(model_name="echo", raw_output_contents=[b"\0\0\x80?"])
    response.outputs.add(name="x", datatype="FP32", shape=[1])
    server.answers["ModelInfer"] = lambda request, context: response.SerializeToString()
    assert run("infer", "echo", "--input", "x=[[1, 2]]", "--top", "2")[1] == "x  FP32 [1]\n[1.]\n"


def test_texts_that_look_like_classes_stay_texts(run: Run, server: Any) -> None:
    server.serve("echo", [("x", "BYTES", [-1])], [("x", "BYTES", [-1])])
    assert run("infer", "echo", "--input", 'x=["1:2:c"]', "--top", "2")[1] == "x  BYTES [1]\n['1:2:c']\n"


@pytest.fixture
def picture(tmp_path: Path) -> str:
    """A grey PNG file of 2 rows and 2 columns."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    image.fromarray(np.array([[0, 10], [20, 30]], np.uint8)).save(tmp_path / "p.png")
    return str(tmp_path / "p.png")


def test_an_image_gets_its_three_best_classes(run: Run, server: Any, picture: str) -> None:
    server.serve("echo", [("x", "FP32", [-1, 1, 2, 2])], [("scores", "FP32", [-1, 4])])

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        header = oip.ModelInferRequest.FromString(request)
        assert header.outputs[0].parameters["classification"].int64_param == 3
        assert np.frombuffer(header.raw_input_contents[0], "<f4").tolist() == [0, 5, 10, 15]
        response = oip.ModelInferResponse(model_name="echo")
        response.outputs.add(name="scores", datatype="BYTES", shape=[1, 2]).contents.bytes_contents[:] = [
            b"0.9:7:a:b",
            b"0.1:2",
        ]
        return response.SerializeToString()

    server.answers["ModelInfer"] = answer
    code, out, err = run("infer", "echo", "--image", picture, "--scale", "0.5")
    assert (code, out) == (0, "scores\nvalue  index  label\n0.9    7      a:b\n0.1    2\n"), err


def test_top_0_shows_the_arrays_of_an_image(run: Run, server: Any, picture: str) -> None:
    server.serve("echo", [("x", "UINT8", [2, 2, 1])], [("x", "UINT8", [2, 2, 1])])
    assert run("infer", "echo", "--image", picture, "--top", "0")[1].startswith("x  UINT8 [2, 2, 1]\n")


def test_the_image_goes_to_the_input_that_is_left_or_named(run: Run, server: Any, picture: str) -> None:
    server.serve("echo", [("x", "UINT8", [1, 2, 2]), ("y", "UINT8", [1, 2, 2])])
    run("infer", "echo", "--image", picture, "--input", "x=[[[1, 2], [3, 4]]]")
    failed(run("infer", "echo", "--image", picture), 2, "--image-input NAME must name", "x UINT8 [1, 2, 2], y UINT8")
    failed(run("infer", "echo", "--image", picture, "--image-input", "z"), 2, "--image-input NAME must name")
    failed(run("infer", "echo", "--image", picture, "--image-input", "x"), 2, "input 'y' missing")
    (request,) = server.requests
    assert {i.name: raw for i, raw in zip(request.inputs, request.raw_input_contents, strict=True)} == {
        "x": bytes([1, 2, 3, 4]),
        "y": bytes([0, 10, 20, 30]),
    }


MISUSES = [
    ([], "the following arguments are required: COMMAND"),
    (["fly"], "invalid choice: 'fly'"),
    (["infer", "echo", "--inp", "x=1"], "unrecognized arguments"),
    (["infer"], "the following arguments are required: name"),
    (["infer", "echo", "--scale", "big", "--image", "p"], "argument --scale: invalid float value: 'big'"),
    (["infer", "echo", "--input", "x"], "--input 'x' given, NAME=JSON or NAME=@FILE wanted"),
    (["infer", "echo", "--input", "x=[1"], "--input x: '[1' cannot be read as an array"),
    (["infer", "echo", "--input", "x=/no.npy"], "a file is given as x=@/no.npy"),
    (["infer", "echo", "--input", "x=" + "[" * 20_000], "[' cannot be read as an array: maximum recursion depth"),
    (["infer", "echo", "--input", "x=@no.npy"], "--input x: file 'no.npy' cannot be read as an array: [Errno 2]"),
    (["infer", "echo", "--input", "x=@no.txt"], "its name ends in '.txt', one of .npy, .npz, .json is wanted"),
    (["infer", "echo", "--input", "x=[1, 2]"], "shape [2] given, [-1, 2] wanted"),
    (["infer", "echo", "--input", 'x=[["a", "b"]]'], "FP32 takes bool and int and float, not str"),
    (["infer", "echo"], "input 'x' missing; it takes x FP32 [-1, 2]"),
    (["infer", "echo", "--input", "x=[[1, 2]]", "--parameter", "p"], "--parameter 'p' given, NAME=VALUE wanted"),
    (["infer", "echo", "--image", "no.png"], "image 'no.png' for input 'x': shape [-1, 2] is not that of one image"),
    (["--url", "http://h:1", "health"], "scheme 'http' is not spoken here"),
    (["--timeout", "nan", "health"], "'nan' given, more than 0"),
    (["--timeout", "-1", "health"], "'-1' given, more than 0"),
    (["--timeout", "1e300", "health"], "'1e300' given, more than 0"),
    (["--metadata", "a", "health"], "--metadata 'a' given, NAME=VALUE wanted"),
    (["--metadata", "a b=c", "health"], "header 'a b'"),
    (["--private-key", "no.pem", "health"], "private_key given without certificate_chain"),
    (["--root-certificates", "no.pem", "health"], "TLS file 'no.pem' cannot be read"),
]


@pytest.mark.parametrize(("words", "message"), MISUSES, ids=[" ".join(words)[:80] or "nothing" for words, _ in MISUSES])
def test_misuse_is_one_line_and_code_2(run: Run, words: list[str], message: str) -> None:
    failed(run(*words), 2, message)


def test_files_of_other_things_are_misuse(run: Run, tmp_path: Path) -> None:
    for name in ("a.npy", "a.npz", "a.json"):
        (tmp_path / name).write_bytes(b"\xff no array")
        failed(run("infer", "echo", "--input", f"x=@{tmp_path / name}"), 2, "cannot be read as an array")
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    failed(run("infer", "echo", "--input", f"x=@{tmp_path}/o.npy"), 2, "cannot be read as an array")
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    failed(run("infer", "echo", "--input", f"x=@{tmp_path}/two.npz"), 2, "holds a, b; x is wanted")


def test_what_the_server_says_is_code_1(run: Run, server: Any) -> None:
    def refuse(request: bytes, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue\nis full")

    server.answers["ModelInfer"] = refuse
    failed(run("infer", "echo", "--input", "x=[[1, 2]]"), 1, "model 'echo': RESOURCE_EXHAUSTED: queue is full")
    server.answers["ModelInfer"] = lambda request, context: b"\xff\xff"
    failed(run("infer", "echo", "--input", "x=[[1, 2]]"), 1, "the server's answer cannot be read")


def test_a_server_that_cannot_serve_is_not_one_that_is_not_there(run: Run, server: Any) -> None:
    def refuse(request: bytes, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNAVAILABLE, "still loading")

    server.answers["ModelMetadata"] = refuse
    failed(run("model", "echo"), 1, "UNAVAILABLE: still loading")
    failed(run("--url", "127.0.0.1:1", "health"), 3, "127.0.0.1:1: UNAVAILABLE", "is the server running there")


def test_the_timeout_holds(run: Run, server: Any) -> None:
    server.answers["Check"] = server.wait_for_cancel
    failed(run("health", "--timeout", "0.05"), 1, "DEADLINE_EXCEEDED")


def test_options_stand_before_or_after_the_command(run: Run, server: Any) -> None:
    assert run("--url", "127.0.0.1:1", "health", "--url", server.url)[0] == 0
    assert run("--json", "health")[1] == run("health", "--json")[1]
    assert run("--timeout", "5", "health", "--metadata", "x-a=1")[0] == 0
    assert server.headers["x-a"] == "1"


def test_tls_options_reach_the_client(run: Run, tmp_path: Path) -> None:
    failed(run("health", "--tls", "--url", "grpc://127.0.0.1:1"), 2, "tls=True contradicts the URL's grpc://")


def test_help_names_every_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = run("--help")
    assert code == 0
    for command in ("health", "index", "models", "model", "infer", "load", "unload", "trace", "log"):
        assert re.search(rf"^    (\w+ \()?{command}\b", out, re.MULTILINE)
    assert "default $TRTSERVE_CLIENT_URL or 127.0.0.1:8001" in " ".join(out.split())


def test_an_interrupt_is_quiet(run: Run, server: Any) -> None:
    main = threading.main_thread().ident

    def interrupt(request: bytes, context: grpc.ServicerContext) -> bytes:
        signal.pthread_kill(main or 0, signal.SIGINT)
        return bytes(server.wait_for_cancel(request, context))

    server.answers["Check"] = interrupt
    # A shell starts what it runs in the background with interrupts ignored, and Python leaves that as it is.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run("health") == (130, "", "")
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_reader_that_has_seen_enough_is_no_failure_to_report(server: Any) -> None:
    read, write = os.pipe()
    os.close(read)
    code = "import sys; from trtserve_client.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--url", server.url, "models"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    os.close(write)
    assert done.stderr == ""


def test_output_may_be_a_stream_without_a_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["health"]) == 0 and out.getvalue() == "server: SERVING\n"
