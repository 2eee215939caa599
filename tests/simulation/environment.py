"""Makes what the simulated GPU needs, once: the stand-in libcuda.so.1, pycuda and cuda.bindings, in .venv-simulation.

Neither a CUDA toolkit nor a driver is needed; a C compiler, a C++ compiler (for pycuda) and a package index are. The
packages are put where only the child process that runs the simulated tests looks.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from tests.support.environments import ROOT

FOLDER = ROOT / ".venv-simulation"
SOURCES = Path(__file__).parent / "libcuda"
SIMULATED_TENSORRT = Path(__file__).parent / "tensorrt_simulated"

PYCUDA = "pycuda==2026.1"
HEADERS = ("nvidia-cuda-runtime==13.0.*", "nvidia-cuda-profiler-api==13.0.*")
PACKAGES = ("cuda-bindings==13.*",)

SITECONF = """
CUDA_INC_DIR = [{include!r}]
CUDADRV_LIB_DIR = [{library!r}]
CUDADRV_LIBNAME = ["cuda"]
CUDA_ENABLE_CURAND = False
CUDA_ENABLE_GL = False
USE_SHIPPED_BOOST = True
"""


class SimulationUnavailable(Exception):
    """This machine cannot make the simulated GPU; the message says what is missing."""


def simulation_environment() -> dict[str, str]:
    """The environment variables of a process that finds the stand-in driver, both packages and the simulated tensorrt.

    Makes all of them at first use. Raises SimulationUnavailable.
    """
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run of the tests may be at it
        library = _library()
        packages = _packages(library)
    paths = [str(SIMULATED_TENSORRT), str(packages), os.environ.get("PYTHONPATH", "")]
    libraries = [str(library), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
    }


def _library() -> Path:
    """The folder of the stand-in, compiled unless its sources are the ones it was compiled from."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    folder = FOLDER / f"libcuda-{digest[:16]}"
    if not (folder / "libcuda.so.1").exists():
        compiler = _compiler("cc", "gcc")
        for old in FOLDER.glob("libcuda-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory() as scratch:
            target = Path(scratch) / "libcuda.so.1"
            code = [path for path in sources if path.suffix == ".c"]
            options = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libcuda.so.1")
            _run(compiler, *options, *code, "-o", target, "-lpthread", "-ldl")
            folder.mkdir(parents=True)
            shutil.move(target, folder)
    return folder


def _packages(library: Path) -> Path:
    """The folder with both packages, installed unless it holds the wanted ones."""
    folder, stamp = FOLDER / "packages", FOLDER / "packages.txt"
    wanted = "\n".join([sys.version, PYCUDA, *HEADERS, *PACKAGES])
    if stamp.exists() and stamp.read_text() == wanted:
        return folder
    _compiler("c++", "g++")
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _pycuda_wheel(library, Path(scratch))
        _pip("install", "--target", folder, *PACKAGES, wheel)
    stamp.write_text(wanted)
    return folder


def _pycuda_wheel(library: Path, scratch: Path) -> Path:
    """Builds pycuda, of which there are no wheels, with CUDA's headers and the stand-in to link with."""
    _pip("download", "--no-deps", "--only-binary=:all:", "--dest", scratch, *HEADERS)
    _pip("download", "--no-deps", "--no-binary=pycuda", "--dest", scratch, PYCUDA)
    for wheel in scratch.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(scratch / "headers")
    (archive,) = scratch.glob("pycuda-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(scratch, filter="data")
    (include,) = (path.parent for path in (scratch / "headers").rglob("cuda.h"))
    shutil.copy(library / "libcuda.so.1", scratch / "libcuda.so")
    (source,) = (path for path in scratch.glob("pycuda-*") if path.is_dir())
    (source / "siteconf.py").write_text(SITECONF.format(include=str(include), library=str(scratch)))
    _pip("wheel", "--no-deps", "--wheel-dir", scratch / "built", source)
    (wheel,) = (scratch / "built").glob("pycuda-*.whl")
    return wheel


def _compiler(*names: str) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    raise SimulationUnavailable(f"there is no compiler here: none of {', '.join(names)} was found")


def _pip(*arguments: object) -> None:
    _run(sys.executable, "-m", "pip", arguments[0], "--quiet", "--disable-pip-version-check", *arguments[1:])


def _run(*command: object) -> None:
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env={**os.environ, "CFLAGS": "-w"})
    if result.returncode != 0:
        shown = " ".join([Path(str(command[0])).name, *map(str, command[1:4])])
        last = "\n".join((result.stderr or result.stdout).strip().splitlines()[-5:])
        raise SimulationUnavailable(f"{shown} failed: {last}")
