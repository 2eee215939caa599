"""When a change on disk is acted on: once it has come to rest, and never because a repository is away."""

import logging
import os
from pathlib import Path

import pytest

from tests.models import make_models
from tests.support.immediate_executor import ImmediateExecutor
from tests.support.manual_reactor import ManualReactor
from trtserve_engines.config import ConfigError
from trtserve_server.config import ServerConfig
from trtserve_server.models.poller import RepositoryPoller, settled_changes
from trtserve_server.models.repository import scan

INTERVAL_S = 10.0


@pytest.mark.parametrize(
    ("applied", "before", "now", "changes"),
    [
        ({}, {}, {}, []),
        ({"m": 1}, {"m": 1}, {"m": 1}, []),
        ({"m": 1}, {"m": 1}, {"m": 2}, []),  # just changed: may still be on its way
        ({"m": 1}, {"m": 2}, {"m": 3}, []),  # still changing
        ({"m": 1}, {"m": 2}, {"m": 2}, ["m"]),  # at rest
        ({"m": 1}, {"m": 2}, {"m": 1}, []),  # changed back
        ({}, {}, {"m": 1}, []),
        ({}, {"m": 1}, {"m": 1}, ["m"]),  # new
        ({"m": 1}, {"m": 1}, {}, []),
        ({"m": 1}, {}, {}, ["m"]),  # gone
        ({"a": 1, "b": 1}, {"a": 2, "b": 2}, {"b": 2, "a": 2}, ["a", "b"]),
    ],
)
def test_a_change_is_acted_on_when_it_has_come_to_rest(applied, before, now, changes):
    assert settled_changes(applied, before, now) == changes


class Watched:
    """A repository on disk, its poller and what the poller had done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.config = ServerConfig(model_repository=(str(folder),), model_control_mode="poll")
        self.reactor = ManualReactor()
        self.applied: list[tuple[str, list[str]]] = []
        self.poller = RepositoryPoller(self.scan, self.apply, self.reactor, ImmediateExecutor(), INTERVAL_S)
        self.scans = 0

    def scan(self):
        self.scans += 1
        return scan(self.config)

    def apply(self, name, versions):
        self.applied.append((name, [version.version for version in versions]))

    def look(self):
        """One more look; what was applied since the last one."""
        self.applied.clear()
        self.reactor.advance(INTERVAL_S)
        return list(self.applied)

    def write(self, path, data=b"x"):
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return file


@pytest.fixture
def watched(tmp_path):
    made = Watched(tmp_path / "repository")
    made.write("m/1/model.onnx")
    made.poller.start(made.scan())
    made.scans = 0
    return made


def test_nothing_is_looked_at_between_the_intervals(watched):
    watched.reactor.advance(INTERVAL_S * 0.9)
    assert watched.scans == 0
    watched.reactor.advance(INTERVAL_S * 5)
    assert watched.scans == 5


def test_what_does_not_change_is_not_loaded_again(watched):
    assert [watched.look() for _ in range(3)] == [[], [], []]


def replace_keeping_size_and_time(file):
    stat = file.stat()
    other = file.with_suffix(".new")
    other.write_bytes(b"y" * stat.st_size)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(other, file)


def touch(file):
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))


CHANGES = [
    pytest.param(lambda w: w.write("m/1/model.onnx", b"longer"), id="size"),
    pytest.param(lambda w: touch(w.folder / "m/1/model.onnx"), id="time"),
    pytest.param(lambda w: replace_keeping_size_and_time(w.folder / "m/1/model.onnx"), id="inode"),
    pytest.param(lambda w: w.write("m/1/data/weights.bin"), id="external-data"),
    pytest.param(lambda w: w.write("m/model.toml", b"instances = 2"), id="configuration"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_content_is_noticed_whatever_changed(watched, change):
    change(watched)
    assert [watched.look() for _ in range(3)] == [[], [("m", ["1"])], []]


def test_labels_belong_to_the_content(watched):
    watched.write("m/model.toml", b'outputs = [{ name = "y", label_filename = "l.txt" }]')
    watched.look(), watched.look()
    watched.write("m/l.txt", b"cat\n")
    assert [watched.look() for _ in range(3)] == [[], [("m", ["1"])], []]


def test_a_note_beside_the_model_changes_nothing(watched):
    watched.write("m/README.md")
    assert [watched.look() for _ in range(3)] == [[], [], []]


def test_a_copy_in_progress_waits_until_it_is_complete(watched):
    for size in (1, 2, 3):
        watched.write("m/2/model.onnx", b"x" * size)
        assert watched.look() == []
    assert watched.look() == [("m", ["2"])]


def test_models_come_and_go(watched):
    watched.write("n/1/model.onnx")
    assert [watched.look() for _ in range(3)] == [[], [("n", ["1"])], []]
    (watched.folder / "n").rename(watched.folder.parent / "n")
    assert [watched.look() for _ in range(3)] == [[], [("n", [])], []]


def test_a_repository_that_is_away_unloads_nothing_and_is_reported_once(watched, caplog):
    away = watched.folder.rename(watched.folder.parent / "away")
    with caplog.at_level(logging.ERROR):
        assert [watched.look() for _ in range(3)] == [[], [], []]
    assert [record.message for record in caplog.records] == [
        f"the models serve on as they are: model repository {str(watched.folder)!r} does not exist;"
        " wanted is a folder of NAME/VERSION/model.onnx"
    ]
    away.rename(watched.folder)
    watched.write("n/1/model.onnx")
    assert [watched.look() for _ in range(2)] == [[], [("n", ["1"])]]


def test_an_unexpected_failure_of_a_look_does_not_end_the_looking(watched, monkeypatch, caplog):
    monkeypatch.setattr(watched.poller, "_scan", lambda: 1 / 0)
    assert watched.look() == []
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.setattr(watched.poller, "_scan", watched.scan)
    watched.write("n/1/model.onnx")
    assert [watched.look() for _ in range(2)] == [[], [("n", ["1"])]]


def test_a_stopped_poller_looks_no_more(watched):
    watched.poller.stop()
    watched.reactor.advance(INTERVAL_S * 3)
    assert watched.scans == 0
    assert watched.reactor.timers == []


def test_the_external_data_of_a_single_file_belongs_to_its_content(tmp_path):
    file = make_models.save_with_external_data(make_models.linear(), tmp_path / "m.onnx")
    config = ServerConfig(model=(str(file),), model_control_mode="poll")
    before = scan(config)
    touch(tmp_path / "weights.bin")
    after = scan(config)
    assert before != after
    (tmp_path / "unrelated.bin").write_bytes(b"")
    assert scan(config) == after
    (tmp_path / "weights.bin").unlink()
    assert scan(config) not in (before, after)


def test_a_scan_says_what_is_wrong_with_a_repository(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        scan(ServerConfig(model_repository=(str(tmp_path / "none"),)))
