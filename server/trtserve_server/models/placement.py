"""Where a model's instances go: a pure function of its configuration, the server's and what the machine has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from trtserve_engines.backend_choice import choose_backend
from trtserve_engines.config import ConfigError
from trtserve_engines.machine import Machine
from trtserve_server.config import InstanceGroupConfig, ModelConfig, ServerConfig


class Placement(NamedTuple):
    """The backend, the number of instances by GPU (None: the CPU), and why that backend."""

    backend: str
    instances: Mapping[int | None, int]
    reason: str


def place(config: ModelConfig, server: ServerConfig, machine: Machine) -> Placement:
    """Where the instances go. Raises BackendUnavailableError or ConfigError where they cannot."""
    everywhere = InstanceGroupConfig(config.instances or server.instances, config.device)
    instances: dict[int | None, int] = {}
    choices = []
    for group in config.instance_groups or (everywhere,):
        choice = choose_backend(config.backend or server.backend, group.device or server.device, machine)
        choices.append(choice)
        for gpu in choice.gpus or (None,):
            instances[gpu] = instances.get(gpu, 0) + group.count
    backend, _, reason = choices[0]
    if None in instances and len(instances) > 1:
        raise ConfigError(
            "instance_groups are on the CPU and on GPUs; the instances of a model are on one kind of device:"
            " leave one of them out, or serve the model under two names"
        )
    return Placement(backend, instances, reason)
