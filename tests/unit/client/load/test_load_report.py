"""The page, the tables and the files that a result becomes."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from tests.unit.client.load.made_results import level, result, run
from trtserve_client.load.errors import OutputError, UsageError
from trtserve_client.load.ratios import ratios_of
from trtserve_client.load.report import page
from trtserve_client.load.results import ClientUse, Point, ServerUse
from trtserve_client.load.scales import Linear, Logarithmic, Ordinal, Percentiles, digits, short
from trtserve_client.load.table import result_text
from trtserve_client.load.writing import check_writable, csv_text, json_text, read_summaries, write

LEVELS = (
    level(run(), run(throughput=120.0), label="1 at once", concurrency=1),
    level(run(p99=40.0, throughput=300.0), label="16 at once", concurrency=16),
)


def compared():
    levels = [level(run(), run(), target="ours"), level(run(throughput=50.0, p50=4.0), run(), target="theirs")]
    return result(*levels, kind="compare", ratios=ratios_of(levels, "ours"))


def searched():
    levels = [
        level(run(), label="50/s", concurrency=0, offered=50.0),
        level(run(), label="90/s", concurrency=0, offered=90.0),
    ]
    return result(*levels, kind="capacity", capacity=50.0)


@pytest.mark.parametrize(
    "made", [result(*LEVELS), result(LEVELS[0]), compared(), searched()], ids=lambda made: made.kind
)
def test_the_page_holds_everything_and_loads_nothing(made):
    html = page(made)
    assert not re.search(r"<script|<link|<img|@import|url\(|(src|href)=", html)
    assert "prefers-color-scheme:dark" in html
    assert "width=device-width" in html
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) >= 6
    for drawing in drawings:
        ElementTree.fromstring(drawing)


@pytest.mark.parametrize(
    "words",
    [
        "latency, ms (logarithmic)",
        "requests under way at once",
        "answered requests/s",
        "share of the requests that were at least this fast",
        "seconds since measuring began",
        "mean time of a request, ms",
        "rows in a batch, mean",
        "trtserve-load m",
        "a CPU",
    ],
)
def test_the_page_names_its_axes_with_units_and_how_it_was_measured(words):
    assert words in page(result(*LEVELS))


def test_what_a_server_or_user_names_cannot_break_the_page():
    hostile = "</script><b>&\"'"
    html = page(
        result(level(run(errors={hostile: 1}, first_error=hostile), label=hostile), title=hostile, command=hostile)
    )
    assert "<b>&" not in html
    assert "&lt;b&gt;" in html


def test_a_load_without_any_answer_can_be_shown():
    empty = run(
        answered=0,
        throughput=0.0,
        p50=0.0,
        p90=0.0,
        p99=0.0,
        p999=0.0,
        max=0.0,
        mean=0.0,
        curve=[],
        errors={"INTERNAL": 3},
    )
    timeless = run(timeline=[Point(0.0, 0.0, 0.0, 0.0, 3)])
    assert "some requests failed" in page(result(level(empty), level(timeless, label="2 at once")))


def test_the_closing_table_has_every_figure_and_every_doubt():
    client = ClientUse(1, 0.95, 0.0, 0.5, "a worker used 95 % of a CPU")
    made = result(
        level(
            run(
                errors={"INTERNAL": 2},
                first_error="INTERNAL: broken",
                stable=False,
                instability="p50 ran",
                client=client,
            )
        )
    )
    text = result_text(made)
    for words in (
        "100",
        "p99.9 ms",
        "2 INTERNAL",
        "INTERNAL: broken",
        "Not stable",
        "client may have been the limit",
        "0.95 CPU",
    ):
        assert words in text


def test_a_doubt_that_many_loads_share_is_told_once():
    doubtful = [level(run(stable=False, instability="too short"), label=f"{n} at once") for n in (1, 2)]
    assert result_text(result(*doubtful)).endswith("Not stable. 1 at once, 2 at once: too short.")


def test_the_timing_of_requests_is_told_by_percentiles_of_each_phase():
    figures = {"mean": 1.0, "p50": 0.5, "p90": 2.0, "p99": 3.25, "max": 4.0}
    made = result(level(run(timings={"queue": figures, "batch_rows": figures})))
    assert re.search(r"waiting for its turn +1 +0.5 +2 +3.25 +4\n", result_text(made))
    assert "rows in its batch" in result_text(made)
    html = page(made)
    assert "<td>waiting for its turn</td><td>1</td><td>0.5</td><td>2</td><td>3.25</td><td>4</td>" in html
    assert "Where the time of single requests goes" in html


def test_a_gpu_is_shown_where_one_is_in_use():
    used = level(run(server=ServerUse(cpu_share=0.8, gpu_share=0.45, gpu_memory_bytes=3 << 30)))
    assert "0.80 CPU, 45% GPU" in result_text(result(used))
    assert "<th>GPU MiB</th>" in page(result(used)) and "<td>3,072</td>" in page(result(used))
    assert "GPU" not in page(result(*LEVELS)) + result_text(result(*LEVELS))


def test_why_the_server_tells_nothing_is_told():
    blind = level(run(server=ServerUse(unknown="UNIMPLEMENTED: not offered")))
    assert "No phases and no batch sizes. 4 at once: UNIMPLEMENTED: not offered." in result_text(result(blind))


def test_a_comparison_prints_ratios_with_their_intervals():
    text = result_text(compared())
    assert re.search(r"ratio to ours +throughput", text)
    assert re.search(r"theirs +0\.750 \(0\.500 to 1\.000\)", text)


def test_a_comparison_of_one_round_claims_no_interval():
    levels = [level(run(), target="ours"), level(run(throughput=50.0), target="theirs")]
    made = result(*levels, kind="compare", ratios=ratios_of(levels, "ours"))
    assert re.search(r"theirs +0\.500 +1\.000 +1\.000$", result_text(made), re.MULTILINE)
    assert "confidence" not in page(made)
    assert "Each target was measured once" in page(made)


def test_a_search_says_what_it_found():
    assert "50 requests/s is the highest rate that held p99 within 20 ms" in result_text(searched())
    assert "No rate held p99 within 20 ms" in result_text(result(*searched().levels, kind="capacity"))


def test_json_can_be_read_back_as_a_baseline(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json_text(result(*LEVELS)))
    summaries = read_summaries(str(path))
    assert summaries["", "1 at once"]["throughput"] == 110.0
    assert summaries["", "16 at once"]["p99"] == 40.0
    assert json.loads(path.read_text())["levels"][0]["runs"][0]["errors"] == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99, "levels": []}', '{"schema": 1, "levels": [3]}'])
def test_what_is_no_result_is_refused_as_a_baseline(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UsageError, match="--baseline"):
        read_summaries(str(tmp_path / "r.json"))


def test_csv_has_a_line_per_measurement():
    rows = list(csv.DictReader(io.StringIO(csv_text(result(*LEVELS)))))
    assert [(row["load"], row["round"], row["throughput"]) for row in rows] == [
        ("1 at once", "1", "100"),
        ("1 at once", "2", "120"),
        ("16 at once", "1", "300"),
    ]


def test_a_full_disk_is_an_error_in_words():
    with pytest.raises(OutputError, match="/dev/full cannot be written: No space left on device"):
        write("/dev/full", lambda: "x" * 100_000)


def test_a_file_that_cannot_be_written_is_refused_before_the_measurement(tmp_path):
    for path in (tmp_path / "no" / "r.html", tmp_path):
        with pytest.raises(UsageError, match=str(path)):
            check_writable(str(path))


@pytest.mark.parametrize(
    ("scale", "texts"),
    [
        (Linear(9.3), ["0", "2", "4", "6", "8", "10"]),
        (Linear(0), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (Linear(123_000, 3), ["0", "50k", "100k", "150k"]),
        (Logarithmic(0.3, 90), ["0.2", "0.5", "1", "2", "5", "10", "20", "50", "100"]),
        (Logarithmic(21, 38), ["20", "30", "40"]),
        (Logarithmic(5, 5), ["4", "6", "8"]),
        (Percentiles(99.9), ["0 %", "50 %", "90 %", "99 %", "99.9 %", "max"]),
        (Ordinal(["1", "4"]), ["1", "4"]),
    ],
)
def test_axes_have_round_figures(scale, texts):
    ticks = scale.ticks
    assert [tick.text for tick in ticks if 0 <= tick.place <= 1] == texts
    assert [tick.place for tick in ticks] == sorted(tick.place for tick in ticks)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (1500, "1500"), (25_000, "25k"), (2.5e6, "2.5M")]
)
def test_figures_are_short(value, text):
    assert short(value) == text


def test_figures_are_never_powers_of_ten():
    found = [digits(value) for value in (0, 0.0123456, 1.5, 999.4, 999.6, 1234.5, 1234567.8)]
    assert found == ["0", "0.0123", "1.5", "999", "1,000", "1,234", "1,234,568"]
    slow = level(run(p50=1234.0, p99=56789.0, max=123456.0, stable=False, instability="p50 ran"))
    assert not re.search(r"\de\+\d", page(result(slow)) + result_text(result(slow)))
