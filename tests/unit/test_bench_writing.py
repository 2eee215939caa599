"""What `./build.sh bench --write` makes of its ratios."""

import json
import xml.etree.ElementTree as ElementTree

from tests.bench.pictures import SHORT, pictures_of
from tests.bench.report import Ratio
from tests.bench.writing import documented, write_all
from tests.support.environments import ROOT

RATIOS = [
    Ratio("rate / baseline", [0.8, 0.9, 1.0], 0.75, True, "90/s / 100/s"),
    Ratio("p50 / baseline", [1.5, 1.6, 1.4], 1.3, False, "15 us / 10 us"),
]
ABOUT = {
    "machine": "2 CPUs",
    "packages": "grpcio 1",
    "rounds": 3,
    "seconds": 2.0,
    "command": "./build.sh bench",
    "date": "2026-01-02",
}


def test_the_short_pair_shows_figures_that_the_last_run_has():
    document = json.loads((ROOT / "docs" / "benchmarks.json").read_text())
    assert set(SHORT) <= {ratio["name"] for ratio in document["ratios"]}
    pictures = pictures_of(document["ratios"])
    for name, text in pictures.items():
        assert (ROOT / "docs" / name).read_text() == text, f"{name}: python -m tests.bench.pictures draws it"
    for kind in ("more", "less"):
        assert f"docs/readme-{kind}.svg" in (ROOT / "README.md").read_text()
        assert pictures[f"readme-{kind}.svg"].count('class="name"') <= 6


def test_a_run_becomes_a_page_figures_and_two_pictures(tmp_path):
    paths = {
        path.name: path.read_text() for path in write_all(tmp_path / "docs", {**ABOUT, "ratios": documented(RATIOS)})
    }
    page = paths["benchmarks.md"]
    assert "| rate / baseline | 0.90 | 0.80 to 1.00 | ≥ 0.75 | yes | 90/s / 100/s |" in page
    assert "| p50 / baseline | 1.50 | 1.40 to 1.60 | ≤ 1.3 | **no** | 15 us / 10 us |" in page
    assert "2 CPUs" in page and "./build.sh bench" in page and "2026-01-02" in page
    assert [ratio["median"] for ratio in json.loads(paths["benchmarks.json"])["ratios"]] == [0.9, 1.5]
    for name, shown, other in (("more", "rate", "p50"), ("less", "p50", "rate")):
        picture = paths[f"benchmarks-{name}.svg"]
        assert ElementTree.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
        assert f"{shown} / baseline" in picture
        assert f"{other} / baseline" not in picture
