"""The synchronous and the asynchronous client are twins: same methods, parameters, defaults, texts; all short."""

from __future__ import annotations

import ast
import inspect

import pytest

from trtserve_client import aio, aio_calls, calls, client

METHODS = sorted(name for name in dir(client.Client) if not name.startswith("_"))


def parameters(function: object) -> list[tuple[str, object, object]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]  # type: ignore[arg-type]


def test_both_have_the_same_methods() -> None:
    assert sorted(name for name in dir(aio.Client) if not name.startswith("_")) == METHODS
    assert len(METHODS) == 23


@pytest.mark.parametrize("name", ["__init__", *METHODS])
def test_a_method_has_the_same_parameters_and_text(name: str) -> None:
    sync, asynchronous = getattr(client.Client, name), getattr(aio.Client, name)
    assert parameters(sync) == parameters(asynchronous)
    if name != "__init__":
        first_lines = [(method.__doc__ or "").splitlines()[0] for method in (sync, asynchronous)]
        assert first_lines[0] == first_lines[1] != ""


@pytest.mark.parametrize("name", METHODS)
def test_a_method_gives_the_same(name: str) -> None:
    sync, asynchronous = (getattr(cls, name).__annotations__["return"] for cls in (client.Client, aio.Client))
    wanted = {
        "Generator[Result | StreamError, None, None]": "AsyncGenerator[Result | StreamError, None]",
        "Generator[Rows, None, None]": "AsyncGenerator[Rows, None]",
    }
    assert wanted.get(sync, sync) == asynchronous
    assert name in ("stream", "infer_rows") or inspect.iscoroutinefunction(getattr(aio.Client, name))


@pytest.mark.parametrize("module", [client, aio, calls, aio_calls], ids=lambda module: module.__name__)
def test_public_methods_are_shells(module: object) -> None:
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    cls = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    for method in cls.body:
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and not method.name.startswith("_"):
            body = [node for node in method.body if not isinstance(node, ast.Expr)] or method.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1
            assert lines <= 10, f"{method.name} has {lines} lines"
