"""Where a model's instances go, for every way to say it."""

import pytest

from trtserve_engines.config import ConfigError
from trtserve_engines.device import GpuIdentity
from trtserve_engines.errors import BackendUnavailableError
from trtserve_engines.machine import Machine
from trtserve_server.config import InstanceGroupConfig, ModelConfig, ServerConfig
from trtserve_server.models.placement import place

GPU = GpuIdentity("NVIDIA L4", (8, 9), 58, 24 << 30, (13, 0))
CPU = Machine(gpu_problem="no CUDA driver was found")
TWO = Machine((GPU, GPU))
Group = InstanceGroupConfig


@pytest.mark.parametrize(
    ("machine", "server", "model", "backend", "instances"),
    [
        (CPU, {}, {}, "onnxruntime", {None: 0}),
        (CPU, {"instances": 3}, {}, "onnxruntime", {None: 3}),
        (CPU, {"instances": 3}, {"instances": 2}, "onnxruntime", {None: 2}),
        (TWO, {}, {}, "tensorrt", {0: 0, 1: 0}),
        (TWO, {"instances": 2}, {}, "tensorrt", {0: 2, 1: 2}),
        (TWO, {"device": "gpu:1"}, {}, "tensorrt", {1: 0}),
        (TWO, {"device": "gpu:1"}, {"device": "gpu:0"}, "tensorrt", {0: 0}),
        (TWO, {}, {"backend": "onnxruntime"}, "onnxruntime", {None: 0}),
        (TWO, {}, {"backend": "onnxruntime", "device": "gpu"}, "onnxruntime", {0: 0, 1: 0}),
        (TWO, {}, {"device": "cpu"}, "onnxruntime", {None: 0}),
        (TWO, {}, {"instance_groups": (Group(2, "gpu:0"), Group(1, "gpu:1"))}, "tensorrt", {0: 2, 1: 1}),
        (TWO, {}, {"instance_groups": (Group(2, "gpu"), Group(1, "gpu:1"))}, "tensorrt", {0: 2, 1: 3}),
        (TWO, {"device": "gpu:1"}, {"instance_groups": (Group(2),)}, "tensorrt", {1: 2}),
        (CPU, {}, {"instance_groups": (Group(2, "cpu"), Group(3))}, "onnxruntime", {None: 5}),
    ],
)
def test_instances_by_device(machine, server, model, backend, instances):
    placement = place(ModelConfig(**model), ServerConfig(**server), machine)
    assert (placement.backend, placement.instances) == (backend, instances)
    assert placement.reason


def test_cpu_and_gpu_for_one_model_are_refused():
    groups = (Group(1, "cpu"), Group(1, "gpu"))
    with pytest.raises(ConfigError, match="on the CPU and on GPUs"):
        place(ModelConfig(instance_groups=groups), ServerConfig(), TWO)


@pytest.mark.parametrize("model", [{"device": "gpu"}, {"instance_groups": (Group(1, "gpu:0"),)}])
def test_a_gpu_that_is_not_there_is_refused(model):
    with pytest.raises(BackendUnavailableError, match="device gpu.* was asked for, but no CUDA driver was found"):
        place(ModelConfig(**model), ServerConfig(), CPU)


@pytest.mark.parametrize("given", [{"instances": 2}, {"device": "gpu"}])
def test_saying_twice_where_instances_are_is_refused(given):
    with pytest.raises(ConfigError, match="instance_groups and .* both say where instances are"):
        ModelConfig(instance_groups=(Group(),), **given)


@pytest.mark.parametrize("values", [{"device": "tpu"}, {"count": 0}])
def test_a_group_checks_itself(values):
    with pytest.raises(ConfigError):
        Group(**values)
