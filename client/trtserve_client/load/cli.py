"""trtserve-load: how fast a server is, how even, at what load it breaks, and where the time goes.

Exit codes: 0 measured, 1 the server said no, 2 wrong use or input, 3 nothing answers at the URL, 4 a --fail-if
condition holds, 5 a worker was lost or a result could not be written, 130 interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from types import FrameType
from typing import NoReturn

from trtserve_client.load.config import LoadConfig
from trtserve_client.load.errors import CONDITION_HOLDS, DONE, INTERRUPTED, LoadError, RefusedError, UsageError
from trtserve_client.load.options import add_arguments, config_from_arguments
from trtserve_client.load.unused import check_used

_COMPARE = "compare"
_OUTPUTS = ("json", "csv", "report")


def main(words: Sequence[str] | None = None) -> int:
    """Runs one measurement and returns the exit code; errors are one line on stderr."""
    given = list(sys.argv[1:] if words is None else words)
    if given == ["--version"]:  # with a value, and beside a model, it is the model's
        print("trtserve-load", version("trtserve"))
        return DONE
    try:
        plan, config = _read(given)
        return _measure(given, plan, config)
    except LoadError as error:
        return _fail(error)
    except BrokenPipeError:
        # Who read our output has seen enough; Python must not try to flush the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED


def _read(words: list[str]) -> tuple[str, LoadConfig]:
    """The plan file, "" without one, and the configuration of the rest."""
    plan = ""
    if words[:1] == [_COMPARE]:
        arguments = _parser(plan=True).parse_args(words[1:])
        plan, arguments.model = arguments.plan, "-"
    else:
        arguments = _parser(plan=False).parse_args(words)
        if not arguments.model:
            raise UsageError("a model is wanted: trtserve-load MODEL; see trtserve-load --help")
    config = config_from_arguments(arguments)
    check_used(config, [name for name, value in vars(arguments).items() if value is not None])
    return plan, config


def _measure(words: list[str], plan: str, config: LoadConfig) -> int:
    # Imported here, so that --help and mistakes are answered at once and without the packages of the extra.
    from trtserve_client.load.gate import conditions_from_words, failures
    from trtserve_client.load.live import LiveView
    from trtserve_client.load.measuring import measured
    from trtserve_client.load.session import Session
    from trtserve_client.load.table import result_text
    from trtserve_client.load.writing import check_writable, read_summaries

    conditions = conditions_from_words(config.fail_if)
    baseline = read_summaries(config.baseline) if config.baseline else {}
    for name in _OUTPUTS:
        if path := getattr(config, name):
            check_writable(path)
    command = shlex.join(["trtserve-load", *_without_secrets(words)])
    began = datetime.datetime.now(datetime.UTC).isoformat(" ", "seconds")
    with _stop_on_interrupt() as stop:
        session = Session(stop, LiveView(sys.stderr, quiet=config.quiet))
        result = measured(session, config, plan, command, began)
    print(result_text(result), flush=True)
    codes = [_fail(session.problem)] if session.problem else []
    codes += _write(config, result) if result.levels else []
    if session.stop.is_set():
        codes.append(INTERRUPTED)
    elif result.levels and not any(run.answered for level in result.levels for run in level.runs):
        codes.append(_fail(RefusedError("no request was answered")))
    for sentence in failures(conditions, result.levels, baseline):
        print(f"trtserve-load: --fail-if: {sentence}", file=sys.stderr)
        codes.append(CONDITION_HOLDS)
    return codes[0] if codes else DONE


def _write(config: LoadConfig, result: object) -> list[int]:
    from trtserve_client.load.report import page
    from trtserve_client.load.results import Result
    from trtserve_client.load.writing import csv_text, json_text, write

    assert isinstance(result, Result)
    codes = []
    for path, text in ((config.json, json_text), (config.csv, csv_text), (config.report, page)):
        if path:
            try:
                write(path, lambda text=text: text(result))  # type: ignore[misc]
            except LoadError as error:
                codes.append(_fail(error))
    return codes


def _without_secrets(words: Sequence[str]) -> list[str]:
    """The words with the values of headers, which may be tokens, left out."""
    shown = []
    for before, word in zip(["", *words], words, strict=False):
        if before == "--metadata":
            shown.append(word.partition("=")[0] + "=...")
        elif word.startswith("--metadata="):
            shown.append("=".join([*word.split("=")[:2], "..."]))
        else:
            shown.append(word)
    return shown


@contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second one ends the process as ever."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def interrupted(number: int, frame: FrameType | None) -> None:
        stop.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, interrupted)
    try:
        yield stop
    finally:
        restore()


def _fail(error: LoadError) -> int:
    print("trtserve-load: error:", " ".join(str(error).split()), file=sys.stderr)
    return error.exit_code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def _parser(*, plan: bool) -> argparse.ArgumentParser:
    prog = "trtserve-load compare" if plan else "trtserve-load"
    parser = _Parser(prog=prog, description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    if not plan:
        parser.epilog = (
            "trtserve-load compare PLAN.toml measures servers side by side;"
            " trtserve-load --version, and nothing else, prints the version of this program."
        )
        add_arguments(parser)
        return parser
    parser.add_argument("plan", help="a file with [load], options by their names, and two or more [[target]] tables")
    for field in dataclasses.fields(LoadConfig):
        if field.name in (*_OUTPUTS, "baseline", "fail_if", "quiet"):
            several = field.name == "fail_if"
            action = "store_true" if field.name == "quiet" else "append" if several else "store"
            parser.add_argument(
                "--" + field.name.replace("_", "-"),
                dest=field.name,
                action=action,
                default=None,
                help=field.metadata["help"],
            )
        else:
            parser.set_defaults(**{field.name: None})
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
