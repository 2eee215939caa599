"""onnxruntime-gpu itself, on a machine without what it needs: the engine says what is missing and takes no CPU.

Skipped by name where it is not installed: it is wanted in .venv-onnxruntime-gpu, or wherever ONNXRUNTIME_GPU_PYTHON
says, with onnx and ml_dtypes.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.models import make_models as models
from tests.support.environments import ROOT

SCRIPT = """
import sys
from pathlib import Path
from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.errors import BackendUnavailableError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.onnxruntime_cuda import cuda_provider_problem
from trtserve_engines.onnxruntime_engine import OnnxRuntimeEngine

model = read_onnx_model(Path(sys.argv[1]))
print("problem:", cuda_provider_problem() or "none")
try:
    print("device:", OnnxRuntimeEngine.load(model, OnnxRuntimeOptions(), gpu=0).device)
except BackendUnavailableError as error:
    print("refused:", error)
print("device:", OnnxRuntimeEngine.load(model, OnnxRuntimeOptions()).device)
"""


@pytest.fixture(scope="session")
def python() -> str:
    """A Python that has onnxruntime-gpu."""
    path = os.environ.get("ONNXRUNTIME_GPU_PYTHON") or str(ROOT / ".venv-onnxruntime-gpu" / "bin" / "python")
    if not Path(path).exists():
        pytest.skip(f"onnxruntime-gpu is not installed: there is no {path}")
    return path


def test_without_cudas_libraries_the_reason_is_said_and_the_cpu_is_not_taken(python: str, tmp_path: Path) -> None:
    model = models.save(models.linear(), tmp_path / "m.onnx")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "engines")}
    result = subprocess.run(
        [python, "-c", SCRIPT, str(model)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    problem, gpu, cpu = result.stdout.splitlines()
    assert problem == "problem: none"
    if gpu == "device: gpu:0":
        pytest.skip("this machine has a GPU that it can use")
    assert gpu.startswith("refused: ONNX Runtime ")
    assert "cannot use gpu:0: its CUDA provider does not start: " in gpu
    assert ".so" in gpu
    assert cpu == "device: cpu"
