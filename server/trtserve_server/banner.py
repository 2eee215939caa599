"""The block of text that ends the start: addresses, models, and the command to try next."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from trtserve_server import __version__
from trtserve_server.app import App
from trtserve_server.config import UNIX_PREFIX, parse_address
from trtserve_server.models.catalogue import Entry, State


def banner(app: App, seconds: float) -> str:
    """What serves where, after a start that took `seconds`."""
    entries = list(app.registry.entries())
    ready = [entry for entry in entries if entry.state is State.READY]
    state = "ready" if app.ready else "NOT READY: no model serves" if not ready else "NOT READY"
    lines = [f"trtserve {__version__} is {state} after {seconds:.1f} s", ""]
    lines += [f"  gRPC     {target}" for target in grpc_targets(app)]
    if app.http_port:
        lines.append(f"  metrics  http://{_target(app.config.http_address, app.http_port)}/metrics")
    lines += ["", *_table([_HEAD, *map(_row, entries)])]
    lines += [f"  {entry.name}: {entry.note}" for entry in entries if entry.note]
    return "\n".join([*lines, "", f"Try next:  {_next_command(app, ready)}"])


def grpc_targets(app: App) -> list[str]:
    """The addresses that clients on this machine connect to."""
    addresses = app.config.grpc_addresses
    return [
        address if address.startswith(UNIX_PREFIX) else _target(address, app.grpc_ports[index])
        for index, address in enumerate(addresses)
    ]


_HEAD = ("MODEL", "VERSION", "STATE", "BACKEND", "DEVICE", "BATCH")


def _row(entry: Entry) -> Sequence[str]:
    model = entry.model
    if model is None:
        return entry.name, entry.version or "-", entry.state.value, "-", "-", "-"
    batch = f"up to {model.max_batch_size}" if model.max_batch_size else "no"
    return entry.name, entry.version, entry.state.value, model.backend, model.device, batch


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _next_command(app: App, ready: Sequence[Entry]) -> str:
    target = grpc_targets(app)[0]
    url = "" if target == "127.0.0.1:8001" else f" --url {target}"
    tls = " --tls" if app.config.tls_certificate else ""
    if app.config.tls_client_ca:
        tls += " --private-key CLIENT.key --certificate-chain CLIENT.pem"
    return f"{_client_program()}{url}{tls} " + (f"model {ready[0].name}" if ready else "models")


def _client_program() -> str:
    """The client program as the reader can call it: by its name, or by its path beside this Python."""
    name = "trtserve-client"
    beside = Path(sys.executable).parent / name
    if shutil.which(name) or not beside.exists():
        return name
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)


def _target(address: str, port: int) -> str:
    host, _ = parse_address(address, "address")
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{shown}:{port}"
