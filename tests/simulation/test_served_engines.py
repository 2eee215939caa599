"""The whole server with TensorRT engines, on the simulation, gives ONNX Runtime's numbers: every kind of model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.models import make_models as models
from tests.simulation.fake_cuda import FakeCuda
from tests.support.oip_client import Client, arrays_of, infer_request
from tests.support.running_server import RunningServer
from trtserve_engines.config import ConfigError, OnnxRuntimeOptions
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.onnxruntime_engine import OnnxRuntimeEngine
from trtserve_engines.tensorrt.tensorrt_config import TensorRtConfig

pytestmark = pytest.mark.simulated(FAKE_CUDA_DEVICES="2")

Serving = Callable[..., Client]
GENERATIONS = [
    pytest.param(version, marks=pytest.mark.simulated(SIMULATED_TENSORRT_VERSION=version))
    for version in ("10.16", "11.4")
]
RANDOM = np.random.default_rng(0)
WAIT_S = 60


@pytest.fixture(autouse=True)
def nothing_is_left_on_the_gpus(cuda: FakeCuda) -> None:
    """The fixture `cuda` looks."""


@pytest.fixture
def serving(cuda: FakeCuda, serve: Callable[..., RunningServer], tmp_path: Path) -> Iterator[Serving]:
    """Serves models, each given by its name, with TensorRT: a client of the server."""
    clients: list[Client] = []
    servers: list[RunningServer] = []

    def start(protos: Mapping[str, onnx.ModelProto], **options: Any) -> Client:
        files = [str(models.save(proto, tmp_path / f"{name}.onnx")) for name, proto in protos.items()]
        defaults = {"backend": "tensorrt", "device": "gpu:0", "engine_cache": str(tmp_path / "cache")}
        servers.append(serve(model=tuple(files), **{**defaults, **options}))
        clients.append(Client(servers[-1].url))
        clients[-1].server = servers[-1]  # type: ignore[attr-defined]
        return clients[-1]

    yield start
    for client in clients:
        client.close()
    for server in servers:
        server.stop()


def expected(proto: onnx.ModelProto, inputs: Mapping[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """ONNX Runtime's answer."""
    model = read_onnx_model(models.save(proto, folder / "expected.onnx"))
    engine = OnnxRuntimeEngine.load(model, OnnxRuntimeOptions(intra_op_threads=1))
    context = engine.create_context(batched=False)
    outputs = context.run([inputs]).outputs
    context.close()
    engine.close()
    return outputs


def assert_close(got: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], tolerance: float = 1e-5) -> None:
    """Every output, to within so much of its largest value."""
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        scale = float(np.abs(array).max(initial=1e-9))
        np.testing.assert_allclose(got[name], array, atol=tolerance * scale, rtol=0)


def metadata(client: Client, model: str) -> dict[str, str]:
    """What the model says of itself."""
    parameters = client.call("ModelMetadata", name=model).parameters
    return {name: value.string_param for name, value in parameters.items() if value.WhichOneof("parameter_choice")}


# ---- the numbers ----

STATIC = models.add((2, 4))
DYNAMIC = models.linear()
IMAGES = models.convnet(16, 8, 2)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(
    ("proto", "shapes", "options"),
    [
        pytest.param(STATIC, {"a": (2, 4), "b": (2, 4)}, {}, id="static shapes"),
        pytest.param(DYNAMIC, {"x": (5, 16)}, {}, id="a dynamic batch"),
        pytest.param(IMAGES, {"image": (3, 3, 16, 16)}, {}, id="a convnet"),
        pytest.param(
            models.identity(dims=("batch", "n")),
            {"x": (7, 300)},
            {"profiles": ("x=1x1:1x64:8x128", "x=1x129:4x256:8x512")},
            id="several profiles",
        ),
        pytest.param(models.nonzero(), {"x": (20,)}, {}, id="outputs whose size the data decides"),
        pytest.param(
            models.identity(TensorProto.FLOAT16), {"x": (2, 3)}, {"profiles": ("x=1x1:2x4:4x8",)}, id="FP16 tensors"
        ),
    ],
)
def test_the_numbers_are_onnx_runtimes(generation, serving, tmp_path, proto, shapes, options):
    client = serving({"m": proto}, tensorrt=TensorRtConfig(**options))
    types = {spec.name: spec.dtype for spec in read_onnx_model(tmp_path / "m.onnx").signature.inputs}
    inputs = {name: RANDOM.standard_normal(shape).round().astype(types[name]) for name, shape in shapes.items()}
    assert_close(client.infer(infer_request("m", inputs)), expected(proto, inputs, tmp_path))
    facts = metadata(client, "m")
    assert (facts["backend"], facts["device"], facts["gpu"]) == ("tensorrt", "gpu:0", "Simulated GPU")
    assert facts["tensorrt"].startswith(generation)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 1e-2), ("int8", 0.2)])
def test_recipes_are_close_and_say_so(generation, serving, tmp_path, precision, tolerance):
    samples = RANDOM.standard_normal((16, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", image=samples)
    calibration = str(tmp_path / "samples.npz")
    client = serving({"m": IMAGES}, tensorrt=TensorRtConfig(precision=precision, calibration=calibration))
    got = client.infer(infer_request("m", {"image": samples[:4]}))
    wanted = expected(IMAGES, {"image": samples[:4]}, tmp_path)
    assert_close(got, wanted, tolerance)
    assert np.abs(got["logits"] - wanted["logits"]).max() > 0
    assert metadata(client, "m")["precision"] == precision


@pytest.mark.parametrize("driver", ["pycuda", "cuda-bindings"])
def test_eight_instances_under_load_give_each_caller_its_own_rows(serving, tmp_path, driver):
    client = serving({"m": DYNAMIC}, instances=8, cuda_driver=driver, tensorrt=TensorRtConfig(accuracy_runs=1))
    batches = [RANDOM.standard_normal((1 + number % 7, 16)).astype(np.float32) for number in range(200)]
    futures = [client.future(infer_request("m", {"x": batch}), timeout=WAIT_S) for batch in batches]
    weights = expected(DYNAMIC, {"x": np.eye(16, dtype=np.float32)}, tmp_path)["y"]
    for batch, future in zip(batches, futures, strict=True):
        raw = future.result().raw_output_contents[0]
        np.testing.assert_allclose(np.frombuffer(raw, np.float32).reshape(-1, 8), batch @ weights, atol=1e-4)
    statistics = client.statistics("m")
    assert statistics.inference_count == sum(map(len, batches))


def test_full_batches_are_staged_behind_the_one_that_runs(serving, cuda):
    proto = models.linear(16, 8)
    client = serving({"m": proto}, default_max_batch_size=4, instances=1)
    server = client.server
    batcher = server.app.registry.find("m").batcher
    rows = RANDOM.standard_normal((13, 1, 16)).astype(np.float32)
    with cuda.held():
        futures = []
        for number, row in enumerate(rows):
            futures.append(client.future(infer_request("m", {"x": row}), timeout=WAIT_S))
            server.wait_until(lambda taken=number + 1: batcher.running + batcher.waiting == taken)
        # The first alone, as nothing ran; then full ones, as many as the instance takes; the rest may still grow.
        assert (batcher.running, batcher.waiting) == (9, 4)
    weights = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    for row, future in zip(rows, futures, strict=True):
        np.testing.assert_allclose(arrays_of(future.result(WAIT_S))["y"], row @ weights, rtol=1e-4, atol=1e-4)


def test_two_models_on_two_gpus_and_one_on_both(serving, tmp_path):
    client = serving(
        {"m": DYNAMIC, "n": models.scale(3.0)}, device="gpu:0,1", instances=2, tensorrt=TensorRtConfig(accuracy_runs=1)
    )
    for name, width in (("m", 16), ("n", 4)):
        config = client.call("ModelConfig", name=name).config
        assert [(group.count, list(group.gpus)) for group in config.instance_group] == [(2, [0]), (2, [1])]
        inputs = {"x": RANDOM.standard_normal((3, width)).astype(np.float32)}
        proto = {"m": DYNAMIC, "n": models.scale(3.0)}[name]
        futures = [client.future(infer_request(name, inputs), timeout=WAIT_S) for _ in range(40)]
        wanted = next(iter(expected(proto, inputs, tmp_path).values()))
        for future in futures:
            got = np.frombuffer(future.result().raw_output_contents[0], np.float32)
            np.testing.assert_allclose(got.reshape(wanted.shape), wanted, atol=1e-4)
        assert metadata(client, name)["device"] == "gpu:0,1"
    assert len(list((tmp_path / "cache" / "engines").iterdir())) == 2  # one engine per model: the GPUs are equal


def test_instance_groups_of_a_config_pbtxt_are_honoured(serve, cuda, tmp_path):
    folder = tmp_path / "repository" / "m"
    models.save(DYNAMIC, folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text("instance_group [ { count: 2 kind: KIND_GPU gpus: [1] } ]")
    server = serve(model_repository=(str(tmp_path / "repository"),), engine_cache=str(tmp_path / "cache"))
    client = Client(server.url)
    (group,) = client.call("ModelConfig", name="m").config.instance_group
    assert (group.count, list(group.gpus), group.kind) == (2, [1], 1)
    assert metadata(client, "m")["device"] == "gpu:1"
    client.close()
    server.stop()


def test_a_batch_beyond_the_profiles_is_refused_and_the_next_request_served(serving):
    client = serving({"m": DYNAMIC}, tensorrt=TensorRtConfig(profiles=("x=1x16:4x16:8x16",)))
    error = client.error("ModelInfer", infer_request("m", {"x": np.zeros((9, 16), np.float32)}))
    assert error.code().name == "INVALID_ARGUMENT"
    assert "a batch of 9 rows given, 1 to 8 wanted" in error.details()
    assert client.infer(infer_request("m", {"x": np.zeros((8, 16), np.float32)}))["y"].shape == (8, 8)


def test_a_shape_beyond_the_profiles_is_refused_with_their_ranges(serving):
    client = serving(
        {"m": models.identity(dims=("batch", "n"))},
        tensorrt=TensorRtConfig(profiles=("x=1x2:1x4:8x8", "x=1x16:1x16:4x32")),
    )
    error = client.error("ModelInfer", infer_request("m", {"x": np.zeros((1, 12), np.float32)}))
    assert error.code().name == "INVALID_ARGUMENT"
    assert "x 1x12 given, x 1x2 to 8x8 or x 1x16 to 4x32 wanted" in error.details()
    assert client.infer(infer_request("m", {"x": np.zeros((4, 32), np.float32)}))["y"].shape == (4, 32)


# ---- what cannot be ----


def test_a_model_that_tensorrt_cannot_take_is_unavailable_with_the_operator_named(serving):
    node = helper.make_node("Det", ["x"], ["y"])
    proto = models.model([node], [models.tensor("x", ["batch", 4, 4])], [models.tensor("y", ["batch"])])
    client = serving({"m": proto, "good": DYNAMIC})
    states = client.states()
    assert states["m"][0] == "UNAVAILABLE"
    assert "operator Det: No importer registered" in states["m"][1]
    assert states["good"][0] == "READY"


def test_an_engine_beyond_the_tolerance_does_not_go_live(serving):
    client = serving({"m": IMAGES}, tensorrt=TensorRtConfig(precision="fp16", max_error=1e-9))
    state, reason = client.states()["m"]
    assert state == "UNAVAILABLE"
    assert "output 'logits': max error" in reason
    assert "largest allowed is 1e-09" in reason


def test_a_model_whose_shapes_need_a_profile_says_how_to_give_one(serving):
    state, reason = serving({"m": models.identity(dims=("batch", "n"))}).states()["m"]
    assert state == "UNAVAILABLE"
    assert "give a profile, for example 'x=" in reason


@pytest.mark.simulated(FAKE_CUDA_MEMORY=str(100 << 20))
def test_a_model_that_does_not_fit_is_unavailable_with_what_it_needs_and_the_others_serve(serving):
    client = serving({"m": IMAGES, "good": DYNAMIC}, tensorrt=TensorRtConfig(memory_reserve_bytes=90 << 20))
    assert client.states()["good"][0] == "READY"
    state, reason = serving({"m": IMAGES}, default_max_batch_size=4096, engine_cache="").states()["m"]
    assert state == "UNAVAILABLE"
    assert "are needed" in reason
    assert "inputs and outputs of 1 instance" in reason


def test_a_plugin_that_the_server_does_not_allow_is_not_loaded(serve, cuda, tmp_path):
    folder = tmp_path / "repository" / "m"
    models.save(DYNAMIC, folder / "1" / "model.onnx")
    (folder / "model.toml").write_text('[tensorrt]\nplugins = ["/tmp/evil.so"]\n')
    server = serve(model_repository=(str(tmp_path / "repository"),), engine_cache=str(tmp_path / "cache"))
    client = Client(server.url)
    state, reason = client.states()["m"]
    assert state == "UNAVAILABLE"
    assert "plugin library /tmp/evil.so is not among those that the server allows" in reason
    client.close()
    server.stop()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu:2"}, "this machine has gpu:0 to gpu:1 and no gpu:2"),
        ({"device": "cpu"}, "TensorRT runs on GPUs only"),
        ({"backend": "onnxruntime"}, "has no CUDA provider"),
    ],
)
def test_what_is_not_there_is_refused_at_the_start(serving, options, message):
    with pytest.raises(ConfigError, match=message):
        serving({"m": DYNAMIC}, **options)


# ---- the cache ----


def test_a_second_start_builds_nothing_and_opens_the_model_once(serving, tmp_path, cuda):
    first = serving({"m": DYNAMIC}, tensorrt=TensorRtConfig())
    assert metadata(first, "m")["engine_source"].startswith("built in ")
    first.server.stop()
    with files_opened(tmp_path / "m.onnx") as opened:
        second = serving({"m": DYNAMIC}, tensorrt=TensorRtConfig())
        opened_by_test = 1  # `serving` writes it
    assert metadata(second, "m")["engine_source"] == "cache"
    assert len(opened) == 1 + opened_by_test


def test_a_damaged_engine_is_built_again_and_set_aside(serving, tmp_path):
    serving({"m": DYNAMIC}).server.stop()
    (entry,) = (tmp_path / "cache" / "engines").iterdir()
    with open(entry / "plan", "r+b") as file:
        file.write(b"XXXX")
    client = serving({"m": DYNAMIC})
    assert metadata(client, "m")["engine_source"].startswith("built in ")
    assert [path.name for path in (tmp_path / "cache" / "damaged").iterdir()] == [entry.name]


def test_a_cache_that_others_can_write_is_refused(serving, tmp_path):
    (tmp_path / "cache").mkdir(mode=0o777)
    (tmp_path / "cache").chmod(0o777)
    state, reason = serving({"m": DYNAMIC}).states()["m"]
    assert state == "UNAVAILABLE"
    assert "is open to other users (mode 0777)" in reason


_opened: list[str] = []
_watched: list[str] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and str(arguments[0]) in _watched:
        _opened.append(str(arguments[0]))


@contextmanager
def files_opened(path: Path) -> Iterator[list[str]]:
    """The times that a file is opened in this process while the block runs."""
    if not _watched:
        sys.addaudithook(_hear)  # it cannot be taken away again
    _watched.append(str(path))
    _opened.clear()
    yield _opened
    _watched[:] = [""]
