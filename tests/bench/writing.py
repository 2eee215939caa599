"""docs/benchmarks.md, its figures as JSON, and the pictures of it and of the README, from what the bench measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.pictures import pictures_of

FIGURES = "benchmarks.json"
PAGE = "benchmarks.md"


def write_all(folder: Path, document: dict[str, Any]) -> list[Path]:
    """Writes the page, the figures and the pictures into `folder`; gives their paths."""
    folder.mkdir(exist_ok=True)
    texts = {FIGURES: json.dumps(document, indent=1) + "\n", PAGE: page(document)}
    texts |= pictures_of(document["ratios"])
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return [folder / name for name in texts]


def page(document: dict[str, Any]) -> str:
    """The page, in Markdown."""
    rows = "\n".join(map(_row, document["ratios"]))
    return f"""# Benchmarks

Each figure is a ratio to a baseline that was measured in turn with it, in the same run, on the same machine: what
disturbs the machine disturbs both. It says more than a rate, which is that of the machine. Every load on a server
comes from trtserve-load's workers, but for perf_analyzer's own, and shares the machine with the server. The figures of
the core, the simulation, imports, the statistics' cost and TensorRT's host cost are of code by itself: there is no
server to send to.

- Machine: {document["machine"]}
- Packages: {document["packages"]}
- Command: `{document["command"]}`, on {document["date"]}
- Median of {document["rounds"]} rounds of {document["seconds"]:g} s each; the spread is from the lowest round to the
  highest

| figure | median | spread | target | met | what was divided by what |
|---|---:|---:|---:|---|---|
{rows}

![More is better](benchmarks-more.svg)
![Less is better](benchmarks-less.svg)

This page is written by `./build.sh bench --write`, with the pictures and `{FIGURES}` beside it.
"""


def documented(ratios: Sequence[Any]) -> list[dict[str, Any]]:
    """The ratios as values that JSON has."""
    return [
        {**ratio._asdict(), "values": list(ratio.values), "median": ratio.median, "met": ratio.met} for ratio in ratios
    ]


def _row(ratio: dict[str, Any]) -> str:
    spread = f"{min(ratio['values']):.2f} to {max(ratio['values']):.2f}"
    target = f"{'≥' if ratio['at_least'] else '≤'} {ratio['target']:g}"
    cells = (
        ratio["name"],
        f"{ratio['median']:.2f}",
        spread,
        target,
        "yes" if ratio["met"] else "**no**",
        ratio["figures"],
    )
    return f"| {' | '.join(cells)} |"
