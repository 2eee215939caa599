"""Operations on models: one after another for each, refused by mode, failed at the server's end; no gRPC."""

from types import NoneType

import pytest

from tests.models import make_models
from tests.support.immediate_executor import ImmediateExecutor
from tests.support.manual_reactor import ManualReactor
from trtserve_engines.config import ConfigError
from trtserve_server.config import ServerConfig
from trtserve_server.errors import InvalidRequest, LoadFailed, ModelControlOff, ModelNotFound, ServerStopping
from trtserve_server.models.catalogue import State
from trtserve_server.models.control import Given, ModelControl
from trtserve_server.models.registry import Registry
from trtserve_server.scheduling.host import Host


class Controlled:
    """A control of real models on disk whose operations are written down as they end."""

    def __init__(self, folder, mode="explicit", **options):
        self.reactor = ManualReactor()
        executor = ImmediateExecutor()
        config = ServerConfig(model_repository=(str(folder),), model_control_mode=mode, **options)
        self.registry = Registry(config, Host(self.reactor), executor, executor, executor)
        self.control = ModelControl(config, self.registry, self.reactor, executor)
        self.ended = []

    def start(self):
        self.control.start(lambda: self.ended.append("started"))
        self.reactor.run()

    def load(self, name, values=None):
        self.control.load(name, Given(values), lambda error: self.ended.append(("load", name, type(error))))

    def unload(self, name):
        self.control.unload(name, lambda error: self.ended.append(("unload", name, type(error))))

    def states(self):
        return {(entry.name, entry.version): entry.state for entry in self.registry.entries()}

    def close(self):
        self.registry.stop()
        assert self.registry.close(10.0)


@pytest.fixture
def controlled(tmp_path):
    made = []

    def make(mode="explicit", **options):
        for name, factor in (("a", 1.0), ("b", 2.0)):
            make_models.save(make_models.scale(factor), tmp_path / name / "1" / "model.onnx")
        made.append(Controlled(tmp_path, mode, **options))
        return made[-1]

    yield make
    for control in made:
        control.close()


def test_explicit_mode_loads_nothing_by_itself(controlled):
    c = controlled()
    c.start()
    assert (c.ended, c.states()) == (["started"], {})


@pytest.mark.parametrize(("names", "loaded"), [(("b",), {"b"}), (("a", "b"), {"a", "b"}), (("*",), {"a", "b"})])
def test_models_named_for_the_start_are_loaded_at_the_start(controlled, names, loaded):
    c = controlled(load_model=names)
    c.start()
    assert {name for (name, _), state in c.states().items() if state is State.READY} == loaded


def test_a_model_for_the_start_that_is_nowhere_stops_the_start(controlled):
    with pytest.raises(ConfigError, match="load_model: 'bb' is in no repository; did you mean 'b'"):
        controlled(load_model=("bb",))


@pytest.mark.parametrize("mode", ["none", "poll"])
def test_other_modes_refuse_and_say_what_to_set(controlled, mode):
    c = controlled(mode)
    for call in (c.load, c.unload):
        with pytest.raises(ModelControlOff, match=f"--model-control-mode {mode}.*start it with .*explicit"):
            call("a")


def test_operations_on_one_model_run_in_their_order(controlled):
    c = controlled()
    c.start(), c.ended.clear()
    c.load("a"), c.unload("a"), c.load("a"), c.load("a"), c.unload("a"), c.load("a")
    c.reactor.run()
    assert [what for what, _, _ in c.ended] == ["load", "unload", "load", "load", "unload", "load"]
    assert {error for _, _, error in c.ended} == {NoneType}
    assert c.states() == {("a", "1"): State.READY}


def test_a_failed_operation_does_not_hold_up_the_next(controlled, tmp_path):
    c = controlled()
    (tmp_path / "a" / "1" / "model.onnx").write_bytes(b"no model")
    c.load("a"), c.load("a"), c.unload("a")
    c.reactor.run()
    assert [error for _, _, error in c.ended] == [LoadFailed, LoadFailed, NoneType]


def test_an_unexpected_failure_ends_the_operation(controlled, monkeypatch, caplog):
    c = controlled()
    monkeypatch.setattr("trtserve_server.models.control.find_model", lambda *_: 1 / 0)
    c.load("a")
    c.reactor.run()
    assert c.ended == [("load", "a", LoadFailed)]
    assert "ZeroDivisionError" in caplog.text


def test_what_is_unchanged_is_not_loaded_again(controlled):
    c = controlled(load_model=("a",))
    c.start()
    first = c.registry.find("a")
    c.load("a")
    c.reactor.run()
    assert c.registry.find("a") is first


def test_another_configuration_loads_it_again(controlled):
    c = controlled(load_model=("a",))
    c.start()
    first = c.registry.find("a")
    c.load("a", {"max_batch_size": 3})
    c.reactor.run()
    assert (c.registry.find("a") is first, c.registry.find("a").max_batch_size) == (False, 3)


@pytest.mark.parametrize(
    ("name", "values", "error"),
    [("c", None, ModelNotFound), ("a", {"max_batch_size": -1}, InvalidRequest), ("a", {"name": "b"}, InvalidRequest)],
)
def test_what_cannot_be_loaded_is_told_apart(controlled, name, values, error):
    c = controlled()
    c.load(name, values)
    c.reactor.run()
    assert c.ended == [("load", name, error)]


def test_unloading_what_is_not_there_is_an_error(controlled):
    c = controlled()
    c.unload("a")
    assert c.ended == [("unload", "a", ModelNotFound)]


@pytest.mark.parametrize(("dependents", "left"), [(False, {"b"}), (True, set())])
def test_dependents_are_unloaded_where_that_is_asked_for(controlled, dependents, left):
    """The parts of "a" are "b" and one that has never been loaded."""
    c = controlled(load_model=("a", "b"))
    c.start(), c.ended.clear()
    c.registry.find("a").parts = ("b", "c")
    c.control.unload("a", c.ended.append, dependents=dependents)
    c.reactor.run()
    assert c.ended == [None]
    assert {name for (name, _), state in c.states().items() if state is State.READY} == left


def test_the_servers_end_fails_what_has_not_begun_and_what_comes(controlled):
    c = controlled()
    c.load("a"), c.unload("a")
    c.control.stop()
    c.load("b")
    c.reactor.run()
    assert [(what, error) for what, _, error in c.ended] == [
        ("unload", ServerStopping),
        ("load", ServerStopping),
        ("load", ServerStopping),
    ]
    assert c.states() == {}


def test_poll_mode_follows_the_disk(controlled, tmp_path):
    c = controlled("poll", repository_poll_interval_s=1.0)
    c.start()
    make_models.save(make_models.scale(3.0), tmp_path / "a" / "2" / "model.onnx")
    c.reactor.advance(1.0)
    assert c.registry.find("a").version == "1"
    c.reactor.advance(1.0)
    assert c.registry.find("a").version == "2"
    assert set(c.states()) == {("a", "2"), ("b", "1")}
    (tmp_path / "b").rename(tmp_path / ".b")
    c.reactor.advance(2.0)
    assert set(c.states()) == {("a", "2")}


def test_a_version_that_fails_leaves_the_others_serving_and_shows_why(controlled, tmp_path):
    c = controlled("poll", repository_poll_interval_s=1.0)
    c.start()
    file = tmp_path / "a" / "2" / "model.onnx"
    file.parent.mkdir()
    file.write_bytes(b"no model")
    c.reactor.advance(2.0)
    assert c.states() == {("a", "1"): State.READY, ("a", "2"): State.UNAVAILABLE, ("b", "1"): State.READY}
    assert "a/2/model.onnx" in c.registry.entry("a", "2").reason
    assert c.registry.find("a").version == "1"
    make_models.save(make_models.scale(3.0), file)
    c.reactor.advance(2.0)
    assert set(c.states()) == {("a", "2"), ("b", "1")}


def test_a_broken_configuration_leaves_the_model_serving_and_shows_why(controlled, tmp_path):
    c = controlled("poll", repository_poll_interval_s=1.0)
    c.start()
    (tmp_path / "a" / "model.toml").write_text("instanses = 1")
    c.reactor.advance(2.0)
    assert c.states()[("a", "1")] is State.READY
    assert "'instanses'" in c.registry.versions("a")[0].reason
    assert c.registry.entry("a").version == "1"
    (tmp_path / "a" / "model.toml").unlink()
    c.reactor.advance(2.0)
    assert c.states() == {("a", "1"): State.READY, ("b", "1"): State.READY}


def test_a_model_file_that_is_gone_is_unloaded_and_holds_up_nobody(tmp_path):
    file = make_models.save(make_models.scale(1.0), tmp_path / "k.onnx")
    (tmp_path / "r").mkdir()
    c = Controlled(tmp_path / "r", "poll", model=(str(file),), repository_poll_interval_s=1.0)
    c.start()
    file.unlink()
    make_models.save(make_models.scale(2.0), tmp_path / "r" / "n" / "1" / "model.onnx")
    c.reactor.advance(2.0)
    assert c.states() == {("n", "1"): State.READY}
    c.close()
