"""What is left behind by a model that cannot be loaded."""

import pytest

from tests.models import make_models
from trtserve_engines.errors import EngineError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.options import build
from trtserve_engines.scripted_engine import ScriptedEngine, echo
from trtserve_engines.step import Watch
from trtserve_server.config import ModelConfig, ServerConfig
from trtserve_server.models import loader
from trtserve_server.models.repository import ModelVersion


def out_of_memory(inputs):
    raise MemoryError


@pytest.mark.parametrize(
    ("config", "compute", "error"),
    [
        ({"outputs": [{"name": "z"}]}, echo, EngineError),
        ({"outputs": [{"name": "y", "label_filename": "labels.txt"}]}, echo, EngineError),
        ({}, out_of_memory, MemoryError),  # in the self-test of batching
        ({"max_batch_size": 4}, out_of_memory, MemoryError),  # where its speed is measured
    ],
)
def test_whatever_goes_wrong_behind_its_opening_the_engine_is_closed(config, compute, error, tmp_path, monkeypatch):
    path = tmp_path / "m" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    make_models.save(make_models.scale(2.0), path)
    engine = ScriptedEngine(read_onnx_model(path).signature, compute)
    monkeypatch.setattr(loader, "open_engine", lambda *arguments, **options: engine)
    source = ModelVersion("m", "1", path, build(ModelConfig, {"name": "m", **config}, "test"))
    with pytest.raises(error):
        loader.load_model(source, ServerConfig(), Watch(may_build=False))
    assert (engine.closed, engine.open_contexts) == (True, 0)
