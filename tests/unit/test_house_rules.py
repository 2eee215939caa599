"""The rules that code can be held to by counting: lengths, docstrings, error trees, what tests must not do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60

PRODUCT = [
    path
    for folder in ("protos", "engines", "server", "client")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "_generated" not in path.parts
]
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def functions(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def named(path):
    return str(path.relative_to(ROOT))


def test_there_is_something_to_count():
    assert len(PRODUCT) > 40


@pytest.mark.parametrize("path", PRODUCT, ids=named)
def test_files_are_short_and_open_with_what_they_do(path):
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_functions_are_short():
    lengths = {
        f"{named(path)}:{node.name}": node.end_lineno - node.lineno + 1
        for path in [*PRODUCT, *TESTS]
        for node in functions(path)
    }
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def test_tests_never_sleep():
    """But for `asyncio.sleep(0)`, which gives way and waits for no time, and for benches, which send at a rate."""
    sleepers = [
        named(path)
        for path in TESTS
        if "bench" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and "sleep" in ast.unparse(node.func)
        and [ast.unparse(argument) for argument in node.args] != ["0"]
    ]
    assert sleepers == []


def test_no_deadline_hangs_on_the_wall_clock():
    """Which may be set at any time: only the monotonic clock is read where requests are taken and scheduled."""
    readers = [
        named(path)
        for path in PRODUCT
        for node in ast.walk(ast.parse(path.read_text()))
        if {"rpc", "scheduling"} & set(path.parts)
        and isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("time.time", "time", "time.time_ns", "datetime.now", "datetime.datetime.now")
    ]
    assert readers == []


def test_test_files_have_unique_names():
    names = [path.name for path in TESTS if path.name.startswith("test_")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "module",
    [
        "trtserve_server.errors",
        "trtserve_engines.errors",
        "trtserve_engines.cuda.errors",
        "trtserve_protos.errors",
        "trtserve_client.errors",
        "trtserve_client.load.errors",
    ],
)
def test_every_error_stands_in_the_tree_of_its_module(module):
    code = (
        f"import {module} as m, inspect\n"
        "for name, cls in vars(m).items():\n"
        "    if inspect.isclass(cls) and issubclass(cls, Exception) and name not in m.__doc__: print(name)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == ""


def test_the_product_has_no_marks_of_unfinished_work():
    marks = [named(path) for path in PRODUCT if any(mark in path.read_text() for mark in ("TODO", "FIXME", "XXX"))]
    assert marks == []
