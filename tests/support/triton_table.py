"""`python -m tests.support.triton_table` writes the table of config.pbtxt's fields into docs/triton.md again."""

from __future__ import annotations

import re
from pathlib import Path

from trtserve_protos import oip
from trtserve_server.pbtxt_fields import table

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "triton.md"

if __name__ == "__main__":
    rows = table(oip.ModelConfig.DESCRIPTOR)
    text = re.sub(r"^\| field \| here .*?(?=\n\n|\Z)", lambda _: rows, DOCUMENT.read_text(), flags=re.M | re.S)
    DOCUMENT.write_text(text.rstrip() + "\n")
