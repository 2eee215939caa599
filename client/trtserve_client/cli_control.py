"""The commands of trtserve-client that control a server: models loaded and unloaded, what it traces and logs."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from trtserve_client import cli_inputs, cli_output
from trtserve_client.client import Client

AddCommand = Callable[..., argparse.ArgumentParser]
"""Makes a command's parser, of its name, what runs it, and its description."""


def add_commands(add: AddCommand) -> None:
    """The commands and their options."""
    load = add(
        "load", _load, "load a model, or again what has changed of it, and wait for at most --timeout until it serves"
    )
    load.add_argument("name")
    load.add_argument(
        "--config", metavar="JSON", help="a ModelConfig in place of the model's own; @FILE reads a .json or .pbtxt file"
    )
    load.add_argument(
        "--file",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a file in place of the model's folder, such as 1/model.onnx=new.onnx; wants --config",
    )

    unload = add("unload", _unload, "unload a model, and wait until its memory is given back")
    unload.add_argument("name")
    unload.add_argument("--dependents", action="store_true", help="with the models that an ensemble is composed of")

    trace = add("trace", _trace, "print which requests are traced, after the changes that are given")
    trace.add_argument("--model", default="", metavar="NAME", help="of this model instead of all")
    _add_changes(trace, "such as trace_level=TIMESTAMPS,TENSORS or trace_rate=1")

    log = add("log", _log, "print what the server logs, after the changes that are given")
    _add_changes(log, "such as log_verbose_level=1 or log_info=false")


def _add_changes(parser: argparse.ArgumentParser, examples: str) -> None:
    parser.add_argument("changes", nargs="*", metavar="NAME=VALUE", help=f"{examples}; NAME= takes a change back")


def _load(client: Client, arguments: argparse.Namespace) -> int:
    config = cli_inputs.config_from_word(arguments.config)
    files = cli_inputs.files_from_words(arguments.file)
    client.load_model(arguments.name, config=config, files=files, timeout_s=arguments.timeout)
    return _print_state(client, arguments)


def _unload(client: Client, arguments: argparse.Namespace) -> int:
    client.unload_model(arguments.name, unload_dependents=arguments.dependents, timeout_s=arguments.timeout)
    return _print_state(client, arguments)


def _trace(client: Client, arguments: argparse.Namespace) -> int:
    changes = cli_inputs.trace_changes_from_words(arguments.changes)
    settings = client.trace_settings(changes, model=arguments.model, timeout_s=arguments.timeout)
    texts = {name: ", ".join(values) for name, values in settings.items()}
    cli_output.print_answer(arguments, cli_output.settings_text(texts), settings)
    return 0


def _log(client: Client, arguments: argparse.Namespace) -> int:
    changes = cli_inputs.log_changes_from_words(arguments.changes)
    settings = client.log_settings(changes, timeout_s=arguments.timeout)
    cli_output.print_answer(arguments, cli_output.settings_text(settings), settings)
    return 0


def _print_state(client: Client, arguments: argparse.Namespace) -> int:
    """What has become of the model: its lines of the index."""
    index = client.repository_index(timeout_s=arguments.timeout)
    lines = [line for line in index if line.name == arguments.name]
    cli_output.print_answer(arguments, cli_output.models_text(lines), [vars(line) for line in lines])
    return 0
