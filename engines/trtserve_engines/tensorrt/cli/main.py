"""trtserve-build: reads the command line, runs one command, writes what it found, ends with its exit code."""

from __future__ import annotations

import json
import logging
import os
import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import NamedTuple

from trtserve_engines.command_line import EXIT_USAGE, CommandLine
from trtserve_engines.config import ConfigError
from trtserve_engines.errors import BackendUnavailableError, EngineError
from trtserve_engines.options import (
    add_arguments,
    build,
    from_arguments,
    merged,
    nearest,
    options_of,
    parse_text,
)
from trtserve_engines.tensorrt.cache_options import CacheOptions
from trtserve_engines.tensorrt.cli import (
    build_command,
    cache_commands,
    explain_command,
    inspect_command,
    recipe_command,
)
from trtserve_engines.tensorrt.cli.outcome import (
    EXIT_CODES,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_MISSING,
    Outcome,
)
from trtserve_engines.tensorrt.engine_cache import EngineCache

PROGRAM = "trtserve-build"


class Command(NamedTuple):
    """A command: what it is for, its own arguments, and what runs it."""

    help: str
    add_arguments: Callable[[CommandLine], None]
    run: Callable[[Namespace], Outcome]


def _with_cache(run: Callable[[EngineCache, Namespace], Outcome]) -> Callable[[Namespace], Outcome]:
    """What runs it on the cache that is meant. Raises EngineCacheError where that cannot be trusted or made."""
    return lambda parsed: run(cache_options(parsed, os.environ).open(os.environ), parsed)


def _no_arguments(parser: CommandLine) -> None:
    """For commands that need none."""


def _keys(parser: CommandLine) -> None:
    parser.add_argument("key", nargs="*", metavar="KEY", help="key of an engine, or its beginning; none = all")


def _key(parser: CommandLine) -> None:
    parser.add_argument("key", metavar="KEY", help="key of an engine, or its beginning")


def _prune(parser: CommandLine) -> None:
    parser.add_argument("--max-bytes", metavar="SIZE", help="remove the least recently used until this is left: 20GiB")
    parser.add_argument("--older-than", metavar="DURATION", help="remove what was not used for this long: 30d")


COMMANDS = {
    "build": Command("build an engine into the cache", build_command.add_arguments, _with_cache(build_command.build)),
    "explain": Command(
        "say whether the cache has an engine, and if not, why",
        explain_command.add_arguments,
        _with_cache(explain_command.explain),
    ),
    "list": Command("list the engines in the cache", _no_arguments, _with_cache(cache_commands.list_engines)),
    "show": Command("show all that is known of an engine", _key, _with_cache(cache_commands.show)),
    "inspect": Command(
        "show the layers of an engine", inspect_command.add_arguments, _with_cache(inspect_command.inspect)
    ),
    "recipe": Command(
        "rewrite a model to a precision and measure it on the CPU", recipe_command.add_arguments, recipe_command.recipe
    ),
    "verify": Command("check every byte of the engines in the cache", _keys, _with_cache(cache_commands.verify)),
    "prune": Command("remove engines from the cache", _prune, _with_cache(cache_commands.prune)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command that `arguments` name and ends the process; see EXIT_CODES."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words or words[0] in ("-h", "--help"):
        raise SystemExit(_written(_help(), 0 if words else EXIT_USAGE))
    if words[0] == "--version":
        raise SystemExit(_written(f"{PROGRAM} {version('trtserve')}", 0))
    command = COMMANDS.get(words[0])
    if command is None:
        print(f"{PROGRAM}: {words[0]!r} is unknown{nearest(words[0], COMMANDS)}", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)
    parsed = _parser(words[0], command).parse_args(words[1:])
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    raise SystemExit(_run(command, parsed))


def _run(command: Command, parsed: Namespace) -> int:
    try:
        outcome = command.run(parsed)
    except EngineError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        code = _exit_code(error)
        return _written(json.dumps({"error": str(error), "exit_code": code}, indent=2), code) if parsed.json else code
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; nothing was left behind", file=sys.stderr)
        return EXIT_INTERRUPTED
    return _written(outcome.shown(as_json=parsed.json), outcome.exit_code)


def _written(text: str, code: int) -> int:
    """Writes to standard output: `code`, or EXIT_FAILED where that could not be written."""
    try:
        print(text, flush=True)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # else who reads it has seen enough
            print(f"{PROGRAM}: the result cannot be written: {error.strerror}", file=sys.stderr)
        # Python must not try to write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return code


def cache_options(parsed: Namespace, environment: Mapping[str, str]) -> CacheOptions:
    """The cache that is meant: by the flags, else by the server's variables in the environment. Raises ConfigError."""
    options = [option for option in options_of(CacheOptions) if option.variable in environment]
    by_variable = {
        option.path[0]: parse_text(environment[option.variable], option.type, option.variable) for option in options
    }
    return build(CacheOptions, merged(by_variable, from_arguments(CacheOptions, parsed)), PROGRAM)


def _exit_code(error: EngineError) -> int:
    if isinstance(error, ConfigError):
        return EXIT_USAGE
    return EXIT_MISSING if isinstance(error, BackendUnavailableError) else EXIT_FAILED


def _parser(name: str, command: Command) -> CommandLine:
    variables = ", ".join(option.variable for option in options_of(CacheOptions))
    parser = CommandLine(
        prog=f"{PROGRAM} {name}",
        description=f"{command.help[0].upper()}{command.help[1:]}.",
        epilog=f"The engine cache may also be given in the environment, as {variables}.\n\n{EXIT_CODES}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    add_arguments(parser, CacheOptions)
    parser.add_argument("--json", action="store_true", help="write the result as JSON")
    return parser


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {command.help}" for name, command in COMMANDS.items()]
    head = f"usage: {PROGRAM} COMMAND [arguments]     {PROGRAM} COMMAND --help says more\n"
    head += f"       {PROGRAM} --version\n\n"
    return head + "\n".join(lines) + f"\n\n{EXIT_CODES}"
