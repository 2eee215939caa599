"""Binds a gRPC server to an address, HOST:PORT or unix:/PATH, or says why it cannot be bound.

gRPC itself writes the reason to its log alone, so it is found by trying first.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import grpc

from trtserve_engines.config import ConfigError
from trtserve_server.config import UNIX_PREFIX, parse_address
from trtserve_server.transport.call import GrpcServer

_LONGEST_UNIX_PATH = 107


def listen(server: GrpcServer, address: str, credentials: grpc.ServerCredentials | None) -> int:
    """Binds the server to the address; gives its port, 1 for a Unix socket. Raises ConfigError."""
    unix = address.startswith(UNIX_PREFIX)
    problem = _unix_problem(Path(address.removeprefix(UNIX_PREFIX))) if unix else _bind_problem(address)
    try:
        if not problem:
            return server.listen(address, credentials)
    except RuntimeError as error:
        problem = str(error)
    raise ConfigError(
        f"grpc_address = {address!r} cannot be listened on: {problem};"
        " stop what listens there or choose another with --grpc-address"
    )


def _bind_problem(address: str) -> str:
    """Why no address of the host can be bound, "" where one can."""
    host, port = parse_address(address, "grpc_address")
    problem = ""
    try:
        for family, kind, protocol, _, target in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                with socket.socket(family, kind, protocol) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(target)
                return ""
            except OSError as error:
                problem = problem or os.strerror(error.errno or 0)
    except socket.gaierror as error:
        problem = str(error.strerror)
    return problem


def _unix_problem(path: Path) -> str:
    """Why the path cannot be a socket of ours, "" where it can. A socket that nobody listens on is left by the dead."""
    if len(os.fsencode(path)) > _LONGEST_UNIX_PATH:
        return f"the path has {len(os.fsencode(path))} bytes, and a Unix socket's at most {_LONGEST_UNIX_PATH}"
    try:
        if not path.parent.is_dir():
            return f"{path.parent} is not a folder"
        if not stat.S_ISSOCK(path.stat().st_mode):
            return "a file is there that is no socket"
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
        return "Address already in use"
    except (FileNotFoundError, ConnectionRefusedError):
        return "" if os.access(path.parent, os.W_OK) else "Permission denied"
    except OSError as error:
        return os.strerror(error.errno or 0)
