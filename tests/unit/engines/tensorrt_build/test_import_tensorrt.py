"""TensorRT is imported late; absent, broken or old, it is one line."""

import sys
import types

import pytest

from trtserve_engines.errors import BackendUnavailableError
from trtserve_engines.tensorrt.import_tensorrt import import_tensorrt, version_numbers


def test_a_version_that_is_new_enough_is_taken(trt):
    assert import_tensorrt() is trt


@pytest.mark.parametrize("version", ["10.10.0.31", "8.6.1", "10.0.1", "unknown"])
def test_an_old_version_is_refused(monkeypatch, version):
    module = types.ModuleType("tensorrt")
    module.__version__ = version
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(BackendUnavailableError, match=rf"TensorRT {version} is too old; wanted is 10.11 or newer"):
        import_tensorrt()


def test_its_absence_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        BackendUnavailableError, match=r"^TensorRT is not installed .* pip install 'trtserve\[tensorrt\]'$"
    ):
        import_tensorrt()


def test_a_library_that_cannot_be_loaded_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.11: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(BackendUnavailableError, match="cannot be loaded .libnvinfer.so.11: cannot open"):
        import_tensorrt()


def test_a_version_ends_where_it_is_no_number():
    assert version_numbers("11.4.0.106") == (11, 4, 0, 106) and version_numbers("11.0.0rc1") == (11, 0)


def test_nothing_of_the_package_imports_tensorrt_by_itself():
    import subprocess

    code = "import sys, trtserve_engines.tensorrt.builder; print('tensorrt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
