"""Draws ratios with their targets as a small SVG that stands by itself, in light and in dark.

`python -m tests.bench.pictures FIGURES.json FOLDER` draws the pictures of a run again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trtserve_client.load.scales import Linear
from trtserve_client.load.svg import Axis, Bar, bar_chart

_WIDTH = 640.0
_STYLE = """<style>
svg{font-family:system-ui,sans-serif;color-scheme:light dark;
--ink:#1a1f2b;--soft:#5b6474;--line:#d9dee7;--c0:#2563c9;--c1:#c2410c}
@media(prefers-color-scheme:dark){svg{--ink:#e8ebf1;--soft:#9aa5b8;--line:#333b48;--c0:#6ea3ff;--c1:#ff9259}}
.tick,.title{font-size:12px;fill:var(--soft)}.name{font-size:14px;fill:var(--ink)}.value{font-size:13px;fill:var(--ink)}
.grid{stroke:var(--line)}.whisker{stroke:var(--ink);stroke-width:2;opacity:.75}.fill{fill:currentColor}
.reference{stroke:var(--ink);stroke-width:2}.c0{color:var(--c0)}.c1{color:var(--c1)}
</style>"""


SHORT = (
    "600 kB both ways, 4 concurrent: rate / baseline",
    "tiny, 16 concurrent: rate / baseline",
    "tiny, stream with 16 in flight: rate / 16 unary",
    "convnet, 8 concurrent: rate / ONNX Runtime alone",
    "overload x 2: goodput / capacity",
    "16 concurrent: driven / by perf_analyzer",
    "tiny, 1 at a time: p50 / baseline",
    "import trtserve_client / import grpc, numpy",
    "overload x 2: p99 of answers / deadline",
    "overload x 2: median of refusals / 5 ms",
)
"""The figures of the README's pair, in which whoever decides on a server is interested, met or missed."""


def pictures_of(ratios: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Every picture by its file name: all figures, and the short pair for the README."""
    short = sorted((each for each in ratios if each["name"] in SHORT), key=lambda each: SHORT.index(each["name"]))
    return {
        f"{name}-{'more' if more else 'less'}.svg": picture(shown, more_is_better=more)
        for name, shown in (("benchmarks", ratios), ("readme", short))
        for more in (True, False)
    }


def picture(ratios: Sequence[dict[str, Any]], *, more_is_better: bool) -> str:
    """The ratios of one kind: bars with the spread of the rounds, those that miss their target in another colour."""
    shown = [ratio for ratio in ratios if ratio["at_least"] is more_is_better]
    bars = [
        Bar(
            ratio["name"],
            ratio["median"],
            min(ratio["values"]),
            max(ratio["values"]),
            f"{ratio['median']:.2f}, target {'at least' if more_is_better else 'at most'} {ratio['target']:g}",
            "c0" if ratio["met"] else "c1",
        )
        for ratio in shown
    ]
    most = max((bar.high for bar in bars), default=1.0)
    title = "ratio to the baseline of the same run; " + ("more" if more_is_better else "less") + " is better"
    drawing = bar_chart(_WIDTH, Axis(Linear(1.05 * max(1.0, most), 6), title), bars, 1.0)
    head, _, rest = drawing.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg">{_STYLE}{rest}\n'


if __name__ == "__main__":
    document = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    for name, text in pictures_of(document["ratios"]).items():
        Path(sys.argv[2], name).write_text(text, "utf-8")
