"""The command `trtserve`: options to a configuration, a configuration to a running server."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence

from trtserve_engines.command_line import EXIT_USAGE, CommandLine, packages_of
from trtserve_engines.config import ConfigError
from trtserve_engines.options import add_arguments, as_mapping, build, from_arguments, merged
from trtserve_server import __version__
from trtserve_server.config import ServerConfig
from trtserve_server.grpc_listener import prefer_quick_listener
from trtserve_server.log_output import LogOutput
from trtserve_server.models.memory import use_one_heap
from trtserve_server.options import from_environment, toml_text

CONFIG_VARIABLE = "TRTSERVE_CONFIG"
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the server until a signal and exits.

    0 drained, 1 forced, 2 wrong use or configuration, 3 a GPU was lost, 130 interrupted before it ran.
    """
    started = time.monotonic()
    parsed = _parser().parse_args(arguments)
    try:
        config = read_config(parsed, os.environ)
        if parsed.print_config:
            print(config_text(config))
            raise SystemExit(0)
        if not (config.model or config.model_repository or config.scripted):
            raise ConfigError("nothing to serve; name an ONNX file (trtserve MODEL.onnx) or --model-repository DIR")
        raise SystemExit(_run(config, started))
    except ConfigError as error:
        print(f"trtserve: {error}", file=sys.stderr)
        raise SystemExit(EXIT_USAGE) from None
    except KeyboardInterrupt:  # before the server itself takes signals
        raise SystemExit(EXIT_INTERRUPTED) from None


def read_config(parsed: argparse.Namespace, environment: Mapping[str, str]) -> ServerConfig:
    """The configuration: command line over environment over file. Raises ConfigError."""
    from pathlib import Path

    from trtserve_server.models.repository import read_toml

    path = parsed.config or environment.get(CONFIG_VARIABLE, "")
    file = read_toml(Path(path)) if path else {}
    if file:
        build(ServerConfig, file, path)  # a mistake in the file is reported with its name
    rest = {name: text for name, text in environment.items() if name != CONFIG_VARIABLE}
    values = merged(file, from_environment(ServerConfig, rest), from_arguments(ServerConfig, parsed))
    return build(ServerConfig, values, "configuration")


def config_text(config: ServerConfig) -> str:
    """The effective configuration of the server, and of each model as a comment, as a file for --config."""
    with packages_of("server", "trtserve"):
        from trtserve_server.models.effective import described
        from trtserve_server.models.repository import find_models

    parts = [toml_text(as_mapping(config)), *(described(version, config) for version in find_models(config))]
    return "\n\n".join(parts)


def _parser() -> CommandLine:
    parser = CommandLine(
        prog="trtserve",
        description="Serves ONNX models over gRPC by the Open Inference Protocol.",
        epilog="Every option may also stand in the --config file and in the environment as TRTSERVE_NAME.",
    )
    parser.add_argument("--version", action="version", version=f"trtserve {__version__}")
    parser.add_argument(
        "--config", metavar="FILE.toml", help=f"read options from this file (or from ${CONFIG_VARIABLE})"
    )
    parser.add_argument("--print-config", action="store_true", help="print the effective configuration and exit")
    add_arguments(parser, ServerConfig, positional="model")
    return parser


def _run(config: ServerConfig, started: float) -> int:
    output = LogOutput(config)
    output.install()
    use_one_heap()
    prefer_quick_listener(os.environ)
    # Imported here, so that --help and mistakes are answered at once, and gRPC reads its variable.
    with packages_of("server", "trtserve"):
        import uvloop

        from trtserve_server.lifecycle import serve

    return uvloop.run(serve(config, output, started))


if __name__ == "__main__":
    main()
