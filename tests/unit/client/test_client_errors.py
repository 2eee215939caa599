"""The error tree: a class for every status, messages that say where and what to do, a docstring that tells no lies."""

from __future__ import annotations

import pickle
import re

import grpc
import pytest

from trtserve_client import errors
from trtserve_client.errors import ClientError, InputError, ServerError, StreamError, error_from_status


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_becomes_an_error_that_keeps_it(code: grpc.StatusCode) -> None:
    error = error_from_status(code, "because")
    assert isinstance(error, ServerError)
    assert error.code is code
    assert error.details == "because"
    assert code.name in str(error) and "because" in str(error)


def test_a_class_stands_for_one_status_only() -> None:
    codes = [cls.code for cls in ServerError.__subclasses__()]
    assert len(codes) == len(set(codes))
    for cls in ServerError.__subclasses__():
        assert type(error_from_status(cls.code, None)) is cls


@pytest.mark.parametrize("code", [grpc.StatusCode.ABORTED, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNKNOWN])
def test_a_status_without_a_class_is_an_unknown_error(code: grpc.StatusCode) -> None:
    assert type(error_from_status(code, "")) is errors.UnknownError
    assert errors.UnknownError.code is grpc.StatusCode.UNKNOWN


def test_the_message_says_where_what_and_what_to_do() -> None:
    error = error_from_status(grpc.StatusCode.UNAVAILABLE, "refused", url="h:1", model="m")
    assert str(error).startswith("h:1 model 'm': UNAVAILABLE: refused (")
    assert "is the server running" in str(error)
    assert str(error_from_status(grpc.StatusCode.CANCELLED, None)) == "CANCELLED"


def test_the_docstring_draws_the_tree_as_it_is() -> None:
    drawn = re.findall(r"[├└]── (\w+)|^    (\w+)\(Exception\)", errors.__doc__ or "", re.MULTILINE)
    classes = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, ClientError)
    }
    assert {first or second for first, second in drawn} == classes
    for line in (errors.__doc__ or "").splitlines():
        if line.startswith("        ") and (match := re.search(r"── (\w+) +([A-Z_]+)$", line)):
            assert getattr(errors, match[1]).code.name == match[2]


@pytest.mark.parametrize(
    "error",
    [
        InputError("x"),
        StreamError("x", request_id="7", details="d"),
        error_from_status(grpc.StatusCode.NOT_FOUND, "d", url="u", model="m"),
        error_from_status(grpc.StatusCode.ABORTED, "d"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_process_borders(error: ClientError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error) and vars(copy) == vars(error)
