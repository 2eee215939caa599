"""tritonclient's own utilities for shared memory, against our server."""

from onnx import TensorProto

from tests.models import make_models


def test_the_stock_client_shares_memory(serve, run_script, tmp_path):
    double = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    words = make_models.save(make_models.identity(TensorProto.STRING), tmp_path / "words.onnx")
    server = serve(
        model=(str(double), str(words)), allow_client_shared_memory=True, client_shared_memory_prefix="trtserve_stock"
    )
    assert run_script("stock_shared_memory.py", server.url) == "ok\n"
