"""Compiles protos/sources into trtserve_protos/_generated: one descriptor set, read at run time, and typed stubs.

Run by `./build.sh protos` and by every build of the package. No `_pb2.py` is made on purpose: generated modules
register in protobuf's default pool, where they would clash with other packages that define `inference.*`.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "sources"
GENERATED = ROOT / "trtserve_protos" / "_generated"

# protoc writes imports between stubs as absolute ones, rooted at the source folder; ours live inside a package.
_STUB_IMPORT = re.compile(r"^from (?!google\.)([\w.]+) import (\w+_pb2)", re.MULTILINE)


def generate() -> None:
    """Replaces the generated folder. Raises RuntimeError when protoc refuses a source."""
    sources = sorted(str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.proto"))
    shutil.rmtree(GENERATED, ignore_errors=True)
    GENERATED.mkdir(parents=True)
    (GENERATED / "__init__.py").write_text('"""Made by protos/generate.py; not edited, not committed."""\n')
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={SOURCES}",
            f"--descriptor_set_out={GENERATED / 'descriptors.binpb'}",
            "--include_imports",
            f"--pyi_out={GENERATED}",
            *sources,
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc refused protos/sources (exit status {status}); its message stands above")
    for stub in GENERATED.rglob("*.pyi"):
        up = "." * len(stub.relative_to(GENERATED).parts)
        stub.write_text(_STUB_IMPORT.sub(rf"from {up}\1 import \2", stub.read_text()))
        for folder in stub.relative_to(GENERATED).parents:
            (GENERATED / folder / "__init__.py").touch()


if __name__ == "__main__":
    generate()
    print(f"generated {GENERATED}", file=sys.stderr)
