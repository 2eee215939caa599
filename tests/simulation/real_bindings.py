"""The real bindings of TensorRT on machines without TensorRT: its small wheels, over libraries that only answer NULL.

With them every class, enum and base class is the real one; whatever the library itself would make cannot be made.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.environments import ROOT, RegistryUnreachable

FOLDER = ROOT / ".venv-tensorrt"
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
ENTRY_POINTS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
"""What the bindings need of the libraries to be loaded."""


class CompilerMissing(Exception):
    """There is no C compiler."""


def bindings_environment(version: str) -> dict[str, str]:
    """The environment of a process that can import `tensorrt_bindings` of this version. Made at first use.

    Raises RegistryUnreachable or CompilerMissing.
    """
    wheel, stubs = _wheel(version), _stubs(version.partition(".")[0])
    return {"PYTHONPATH": os.pathsep.join([str(wheel), str(ROOT)]), "LD_LIBRARY_PATH": str(stubs)}


def _wheel(version: str) -> Path:
    folder = FOLDER / f"{version}-{sys.version_info.major}{sys.version_info.minor}"
    if not folder.is_dir():
        scratch = FOLDER / f"{folder.name}.partial"
        shutil.rmtree(scratch, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", str(scratch), f"tensorrt-cu12-bindings=={version}"]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            raise RegistryUnreachable("\n".join(result.stderr.strip().splitlines()[-3:]))
        for path in scratch.glob("*.whl"):
            zipfile.ZipFile(path).extractall(scratch)
        scratch.rename(folder)
    return folder


def _stubs(major: str) -> Path:
    folder = FOLDER / f"stubs-{major}"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CompilerMissing("no C compiler (cc, gcc) was found")
    folder.mkdir(parents=True, exist_ok=True)
    source = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in ENTRY_POINTS)
    for name in LIBRARIES:
        target = folder / f"lib{name}.so.{major}"
        if not target.exists():
            command = [compiler, "-shared", "-fPIC", "-xc", "-", "-o", str(target), f"-Wl,-soname,{target.name}"]
            subprocess.run(command, input=source, text=True, check=True)
    return folder
