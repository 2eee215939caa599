"""Where a model's instances go: a pure function of its configuration, the server's and what the machine has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from trtserve_engines.backend_choice import choose_backend
from trtserve_engines.config import ConfigError
from trtserve_engines.machine import Machine
from trtserve_server.config import ModelConfig, ServerConfig


class Placement(NamedTuple):
    """The backend, the number of instances by GPU (None: the CPU; 0: what suits the engine), and why that backend."""

    backend: str
    instances: Mapping[int | None, int]
    reason: str


def place(config: ModelConfig, server: ServerConfig, machine: Machine) -> Placement:
    """Where the instances go. Raises BackendUnavailableError or ConfigError where they cannot."""
    groups = [(group.count, group.device) for group in config.instance_groups]
    instances: dict[int | None, int] = {}
    choices = []
    for count, device in groups or [(config.instances or server.instances, config.device)]:
        choice = choose_backend(config.backend or server.backend, device or server.device, machine)
        choices.append(choice)
        for gpu in choice.gpus or (None,):
            instances[gpu] = instances.get(gpu, 0) + count
    backend, _, reason = choices[0]
    if None in instances and len(instances) > 1:
        raise ConfigError(
            "instance_groups are on the CPU and on GPUs; the instances of a model are on one kind of device:"
            " leave one of them out, or serve the model under two names"
        )
    return Placement(backend, instances, reason)
