"""Results to files and back: JSON for programs, CSV for spreadsheets. What cannot be written is an OutputError."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trtserve_client.load.errors import OutputError, UsageError
from trtserve_client.load.results import METRICS, SCHEMA, Result, document_from_result

_CSV_HEAD = (
    "target",
    "load",
    "round",
    "seconds",
    "answered",
    "errors",
    *METRICS,
    "batch",
    "server_cpu",
    "gpu",
    "client_cpu",
    "stable",
)


def check_writable(path: str) -> None:
    """Raises UsageError where the file cannot be written, before anything is measured for it."""
    parent = Path(path).parent
    if not parent.is_dir():
        raise UsageError(f"{path}: {parent} is not a folder")
    if Path(path).is_dir():
        raise UsageError(f"{path} is a folder; give a file")
    try:
        with open(path, "a"):
            pass
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def write(path: str, text_of: Callable[[], str]) -> None:
    """Writes a text. Raises OutputError; what could be written of it is removed, for half a result is none."""
    text = text_of()
    try:
        Path(path).write_text(text, "utf-8")
    except OSError as error:
        if Path(path).is_file():
            Path(path).unlink()
        raise OutputError(f"{path} cannot be written: {error.strerror}; the figures above are all there is") from None


def json_text(result: Result) -> str:
    """The result as JSON."""
    return json.dumps(document_from_result(result), ensure_ascii=False, indent=1) + "\n"


def csv_text(result: Result) -> str:
    """One line per measurement; latencies in ms, rates per second."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_CSV_HEAD)
    for level in result.levels:
        for number, run in enumerate(level.runs, 1):
            figures = [f"{getattr(run, metric):.6g}" for metric in METRICS]
            row = [level.target, level.label, number, f"{run.seconds:.3f}", run.answered, run.error_count, *figures]
            uses = [
                f"{run.server.batch:.3g}",
                f"{run.server.cpu_share:.3g}",
                f"{run.server.gpu_share:.3g}",
                f"{run.client.cpu_share:.3g}",
            ]
            writer.writerow([*row, *uses, run.stable])
    return file.getvalue()


def read_summaries(path: str) -> dict[tuple[str, str], dict[str, float]]:
    """The medians of an earlier --json by target and load. Raises UsageError."""
    try:
        document: Any = json.loads(Path(path).read_text("utf-8"))
        if document["schema"] != SCHEMA:
            raise UsageError(f"--baseline {path} has schema {document['schema']}, {SCHEMA} is read; measure it again")
        return {
            (level["target"], level["label"]): {
                metric: float(spread["median"]) for metric, spread in level["summary"].items()
            }
            for level in document["levels"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"--baseline {path} is no result of trtserve-load --json: {error}") from None
