"""trtserve-client: asks a server about its health and models, runs inferences from files, and controls the server.

Exit codes: 0 done, 1 the server said no, 2 wrong usage or input, 3 nothing answers at the URL.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, NoReturn

from trtserve_client import cli_control, cli_inputs, cli_output
from trtserve_client.channel import ChannelOptions, TlsOptions
from trtserve_client.cli_output import print_answer
from trtserve_client.client import Client
from trtserve_client.errors import BadResponse, ClientError, ServerError, Unavailable, Unimplemented
from trtserve_client.images import array_from_image
from trtserve_protos import wishes

_DEFAULT_URL = "127.0.0.1:8001"
_TOP_OF_AN_IMAGE = 3
_MAX_TIMEOUT_S = 1e9  # about thirty years; what is far beyond is not what gRPC can count
Command = Callable[[Client, argparse.Namespace], int]

DONE, REFUSED, MISUSED, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code; errors are one line on stderr."""
    given = list(sys.argv[1:] if words is None else words)
    if given == ["--version"]:
        print("trtserve-client", version("trtserve"))
        return DONE
    arguments = _parser().parse_args(given)
    try:
        with _client(arguments) as client:
            try:
                code: int = arguments.run(client, arguments)
            except Unavailable as error:
                return _fail(error, _code_of_unavailable(client))
        sys.stdout.flush()
        return code
    except (ServerError, BadResponse) as error:
        return _fail(error, REFUSED)
    except ClientError as error:
        return _fail(error, MISUSED)
    except BrokenPipeError:
        # Who read our output has seen enough; Python must not try to flush the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED


def _health(client: Client, arguments: argparse.Namespace) -> int:
    status = client.health(arguments.service, timeout_s=arguments.timeout)
    print_answer(
        arguments, f"{arguments.service or 'server'}: {status}", {"service": arguments.service, "status": status}
    )
    return DONE if status == "SERVING" else REFUSED


def _models(client: Client, arguments: argparse.Namespace) -> int:
    models = client.repository_index(ready=arguments.ready, timeout_s=arguments.timeout)
    print_answer(arguments, cli_output.models_text(models), [vars(model) for model in models])
    return DONE


def _model(client: Client, arguments: argparse.Namespace) -> int:
    model = client.model_metadata(arguments.name, arguments.version, timeout_s=arguments.timeout)
    state = _state(client, arguments)
    document = {
        "name": model.name,
        "versions": model.versions,
        "state": state,
        "platform": model.platform,
        "parameters": dict(model.parameters),
        "inputs": [vars(tensor) for tensor in model.inputs],
        "outputs": [vars(tensor) for tensor in model.outputs],
    }
    print_answer(arguments, cli_output.model_text(model, state), document)
    return DONE


def _infer(client: Client, arguments: argparse.Namespace) -> int:
    model = client.model_metadata(arguments.name, arguments.version, timeout_s=arguments.timeout)
    inputs = cli_inputs.inputs_from_words(arguments.input)
    if arguments.image:
        spec = cli_inputs.image_input(model, arguments.image_input, inputs)
        inputs[spec.name] = array_from_image(arguments.image, spec, arguments.scale)
    top = arguments.top if arguments.top is not None else _TOP_OF_AN_IMAGE if arguments.image else 0
    classified = cli_inputs.classified_outputs(arguments.output, top, model)
    parameters = cli_inputs.parameters_from_words(arguments.parameter)
    if arguments.timing:
        parameters = {**parameters, wishes.TIMING: True}
    result = client.infer(
        arguments.name,
        inputs,
        version=arguments.version,
        outputs=classified or arguments.output or None,
        parameters=parameters,
        timeout_s=arguments.timeout,
    )
    ranked = {name for name, parameters in classified.items() if parameters}
    print_answer(arguments, cli_output.result_text(result, ranked), cli_output.result_document(result, ranked))
    return DONE


def _state(client: Client, arguments: argparse.Namespace) -> str:
    """The state of each version by the repository's index, or by readiness where the server keeps no index."""
    try:
        index = client.repository_index(timeout_s=arguments.timeout)
    except Unimplemented:
        ready = client.model_ready(arguments.name, arguments.version, timeout_s=arguments.timeout)
        return "READY" if ready else "UNAVAILABLE"
    states = [each for each in index if each.name == arguments.name and arguments.version in ("", each.version)]
    return ", ".join(f"{each.version} {each.state}".strip() for each in states) or "UNKNOWN"


def _client(arguments: argparse.Namespace) -> Client:
    files = (arguments.root_certificates, arguments.private_key, arguments.certificate_chain)
    tls = TlsOptions(*files) if any(files) else arguments.tls
    metadata = cli_inputs.headers_from_words(arguments.metadata)
    return Client(arguments.url, tls=tls, options=ChannelOptions(), metadata=metadata)


def _code_of_unavailable(client: Client) -> int:
    """UNAVAILABLE is also what a server says that is there but cannot serve; one that is there says that it lives."""
    try:
        client.server_live(timeout_s=5)
    except ServerError:
        return UNREACHABLE
    return REFUSED


def _fail(error: Exception, code: int) -> int:
    print("trtserve-client: error:", " ".join(str(error).split()), file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SystemExit(_fail(ClientError(f"{message}; see {self.prog} --help"), MISUSED))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="trtserve-client", description="Ask a gRPC inference server.", allow_abbrev=False)
    parser.epilog = "trtserve-client --version, and nothing else, prints the version of this program."
    _add_connection(parser, os.environ.get("TRTSERVE_CLIENT_URL") or _DEFAULT_URL)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    health = _add_command(commands, "health", _health, "print the server's health; exit code 0 if it is SERVING")
    health.add_argument("--service", default="", help="a service or a model instead of the whole server")

    index = _add_command(commands, "index", _models, "list the models that the server knows", aliases=["models"])
    index.add_argument("--ready", action="store_true", help="only those that serve")

    model = _add_command(commands, "model", _model, "print what a model takes and gives")
    model.add_argument("name")
    model.add_argument("--version", default="", help="one version instead of the one that the server would choose")

    infer = _add_command(commands, "infer", _infer, "run a model once")
    infer.add_argument("name")
    infer.add_argument("--version", default="", help="one version instead of the one that the server would choose")
    infer.add_argument(
        "--input", action="append", default=[], metavar="NAME=VALUE", help="JSON, or @FILE with .npy, .npz or .json"
    )
    infer.add_argument("--image", metavar="FILE", help="an image, brought into the shape that the model takes")
    infer.add_argument("--image-input", metavar="NAME", help="the input for the image where the model has several")
    infer.add_argument("--scale", type=float, default=1.0, help="factor for pixel values of 0 to 255 (default 1)")
    infer.add_argument("--top", type=int, metavar="N", help="the N best classes (default 3 with --image, 0 = arrays)")
    infer.add_argument("--output", action="append", default=[], metavar="NAME", help="an output instead of all")
    infer.add_argument("--timing", action="store_true", help="say where the server's time went")
    infer.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help="a request parameter")

    cli_control.add_commands(partial(_add_command, commands))
    return parser


def _add_command(
    commands: Any, name: str, run: Command, description: str, aliases: Sequence[str] = ()
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, aliases=aliases, help=description, description=description, allow_abbrev=False
    )
    command.set_defaults(run=run)
    _add_connection(command, None)
    return command


def _add_connection(parser: argparse.ArgumentParser, url: str | None) -> None:
    """The options that stand before or after the command; after it (no `url`) they win over those before."""

    def add(option: str, default: object, **settings: Any) -> None:
        parser.add_argument(option, default=argparse.SUPPRESS if url is None else default, **settings)

    add(
        "--url",
        url,
        help=f"host:port, grpcs://host:port or unix:/path (default $TRTSERVE_CLIENT_URL or {_DEFAULT_URL})",
    )
    add("--timeout", 60.0, type=_seconds, metavar="SECONDS", help="limit for each call (default 60)")
    add("--json", False, action="store_true", help="print one JSON document")
    add("--metadata", [], action="append", metavar="NAME=VALUE", help="a header of every call, such as authorization")
    add("--tls", None, action="store_true", help="encrypt, and check the server by the usual root certificates")
    add("--root-certificates", None, metavar="FILE", help="encrypt, and check the server by these certificates")
    add("--private-key", None, metavar="FILE", help="the key of a client certificate")
    add("--certificate-chain", None, metavar="FILE", help="the client certificate")


def _seconds(text: str) -> float:
    """A limit that gRPC can count with."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= _MAX_TIMEOUT_S:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} given, more than 0 and at most {_MAX_TIMEOUT_S:.0f} seconds wanted")
