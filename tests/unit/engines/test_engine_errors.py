"""One tree of errors, drawn in one place."""

import importlib
import inspect
import pkgutil

import pytest

import trtserve_engines
from trtserve_engines import errors

MODULES = [f"trtserve_engines.{module.name}" for module in pkgutil.iter_modules(trtserve_engines.__path__)]
ERRORS = {
    value
    for name in MODULES
    for value in vars(importlib.import_module(name)).values()
    if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__.startswith("trtserve_engines")
}


@pytest.mark.parametrize("error", sorted(ERRORS, key=lambda error: error.__name__), ids=lambda error: error.__name__)
def test_every_error_of_the_package_stands_in_the_tree_with_its_meaning(error):
    assert issubclass(error, errors.EngineError)
    (line,) = [line for line in errors.__doc__.splitlines() if f" {error.__name__}" in f" {line.strip('├└─ ')}"]
    assert len(line.split()) > 3 or error is errors.EngineError
    assert error.__doc__


def test_the_tree_holds_no_error_that_does_not_exist():
    drawn = {word.split("(")[0] for word in errors.__doc__.split() if word.split("(")[0].endswith("Error")}
    assert drawn == {error.__name__ for error in ERRORS}
