"""An ensemble as a graph: which step gives which tensor to which, and what the whole takes and gives. Pure.

What is wrong with the configuration alone is found without the models; what the models disagree on, with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from trtserve_engines.config import ConfigError
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec, shapes_agree
from trtserve_protos import dtypes
from trtserve_server.config import ModelConfig, StepConfig, TensorConfig


class Component(Protocol):
    """What has to be known of the model of a step."""

    name: str
    signature: Signature

    @property
    def max_batch_size(self) -> int:
        """The most rows; 0 where the model knows none."""
        ...


@dataclass(frozen=True)
class Graph:
    """Steps by number, in an order in which each finds its inputs; names of the ensemble's own inputs and outputs.

    `takers` are the steps that take a tensor, by its name.
    """

    steps: tuple[StepConfig, ...]
    order: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    takers: Mapping[str, Sequence[int]]

    def shown(self, number: int) -> str:
        """The step as messages name it, counted from 1."""
        return f"step {number + 1} (model {self.steps[number].model!r})"


def graph_of(config: ModelConfig) -> Graph:
    """The graph that the configuration describes. Raises ConfigError, which shows a cycle where there is one."""
    steps = config.ensemble
    makers = _makers(steps)
    taken = dict.fromkeys(tensor for step in steps for tensor in step.inputs.values())
    free = tuple(tensor for tensor in taken if tensor not in makers)
    inputs = tuple(tensor.name for tensor in config.inputs) or free
    known = {*makers, *inputs}
    for name in inputs:
        if name in makers:
            raise ConfigError(f"tensor {name!r} is an input of the ensemble and an output of step {makers[name] + 1}")
    for number, step in enumerate(steps):
        for name, tensor in step.inputs.items():
            if tensor not in known:
                raise ConfigError(
                    f"step {number + 1} (model {step.model!r}) takes {name!r} from tensor {tensor!r}, which no step"
                    f" gives and which is no input of the ensemble; its inputs are {_listed(inputs)}"
                )
    last = tuple(tensor for tensor in makers if tensor not in taken)
    outputs = tuple(tensor.name for tensor in config.outputs) or last
    for name in outputs:
        if name not in makers:
            raise ConfigError(f"no step gives output {name!r} of the ensemble; steps give {_listed(makers)}")
    order = _order(steps, makers)
    if not outputs:
        raise ConfigError("the ensemble has no outputs: every tensor that a step gives is taken by another")
    return Graph(steps, order, inputs, outputs, _takers(steps))


def batch_size_of(graph: Graph, config: ModelConfig, components: Sequence[Component]) -> tuple[int, str]:
    """max_batch_size of the ensemble, and why. Raises ConfigError where a step takes fewer rows."""
    smallest = min(range(len(components)), key=lambda number: components[number].max_batch_size)
    rows = components[smallest].max_batch_size
    if config.max_batch_size is None:
        if rows:
            return rows, f"every step is batched, {graph.shown(smallest)} with at most {rows} rows"
        return 0, f"{graph.shown(smallest)} is not batched"
    limited = [number for number, each in enumerate(components) if 0 < each.max_batch_size < config.max_batch_size]
    if limited:
        raise ConfigError(
            f"max_batch_size = {config.max_batch_size}, but {graph.shown(limited[0])} takes at most"
            f" {components[limited[0]].max_batch_size} rows; lower the one or raise the other"
        )
    return config.max_batch_size, f"the configuration says so (max_batch_size = {config.max_batch_size})"


def signature_of(graph: Graph, config: ModelConfig, components: Sequence[Component], max_batch_size: int) -> Signature:
    """What the ensemble takes and gives. Raises ConfigError where steps do not fit each other or the configuration."""
    tensors = _Tensors()
    given = {tensor.name: tensor for tensor in (*config.inputs, *config.outputs)}
    for name in graph.inputs:
        if (tensor := given.get(name)) and tensor.datatype and tensor.dims is not None:
            tensors.meet(_configured(tensor, max_batch_size), "the ensemble's configuration")
    for number in graph.order:
        step, model = graph.steps[number], components[number]
        _check_names(graph.shown(number), "input", step.inputs, model.signature.input_by_name, complete=True)
        _check_names(graph.shown(number), "output", step.outputs, model.signature.output_by_name)
        for name, tensor_name in step.inputs.items():
            spec = model.signature.input_by_name[name]
            tensors.meet(TensorSpec(tensor_name, spec.dtype, spec.shape), f"input {name!r} of {graph.shown(number)}")
        for name, tensor_name in step.outputs.items():
            spec = model.signature.output_by_name[name]
            tensors.meet(TensorSpec(tensor_name, spec.dtype, spec.shape), f"output {name!r} of {graph.shown(number)}")
    for name in (*graph.inputs, *graph.outputs):
        if tensor := given.get(name):
            tensors.meet_configured(tensor, max_batch_size)
    return Signature(
        tuple(tensors.spec(name) for name in graph.inputs), tuple(tensors.spec(name) for name in graph.outputs)
    )


class _Tensors:
    """What is known of each tensor so far, and from whom."""

    def __init__(self) -> None:
        self._specs: dict[str, TensorSpec] = {}
        self._sources: dict[str, str] = {}

    def spec(self, name: str) -> TensorSpec:
        """Raises ConfigError for an input that no step takes and whose type nobody says."""
        if name not in self._specs:
            raise ConfigError(
                f"input {name!r} is taken by no step, so that its datatype and dims have to be configured"
            )
        return self._specs[name]

    def meet(self, spec: TensorSpec, source: str) -> None:
        """Adds what `source` says of a tensor. Raises ConfigError where it contradicts what is known."""
        known = self._specs.get(spec.name)
        if known is None:
            self._specs[spec.name], self._sources[spec.name] = spec, source
            return
        if known.dtype != spec.dtype or not shapes_agree(known.shape, spec.shape):
            raise ConfigError(
                f"tensor {spec.name!r}: {source} is {_shown(spec)}, {self._sources[spec.name]} is {_shown(known)}"
            )
        shape = tuple(two if one == DYNAMIC else one for one, two in zip(known.shape, spec.shape, strict=True))
        self._specs[spec.name] = TensorSpec(spec.name, spec.dtype, shape)

    def meet_configured(self, tensor: TensorConfig, max_batch_size: int) -> None:
        """Adds what the configuration says, which may be the type or the dims alone. Raises ConfigError."""
        known = self.spec(tensor.name)
        dtype = dtypes.from_name(tensor.datatype).numpy if tensor.datatype else known.dtype
        shape = known.shape if tensor.dims is None else _full(tensor.dims, max_batch_size)
        self.meet(TensorSpec(tensor.name, dtype, shape), "the ensemble's configuration")


def _makers(steps: Sequence[StepConfig]) -> dict[str, int]:
    """The number of the step that gives each tensor."""
    makers: dict[str, int] = {}
    for number, step in enumerate(steps):
        if not step.inputs or not step.outputs:
            raise ConfigError(f"step {number + 1} (model {step.model!r}) maps no {'out' if step.inputs else 'in'}puts")
        for tensor in step.outputs.values():
            if tensor in makers:
                raise ConfigError(f"steps {makers[tensor] + 1} and {number + 1} both give tensor {tensor!r}")
            makers[tensor] = number
    return makers


def _takers(steps: Sequence[StepConfig]) -> dict[str, list[int]]:
    """The numbers of the steps that take each tensor, each once."""
    takers: dict[str, list[int]] = {}
    for number, step in enumerate(steps):
        for tensor in dict.fromkeys(step.inputs.values()):
            takers.setdefault(tensor, []).append(number)
    return takers


def _order(steps: Sequence[StepConfig], makers: Mapping[str, int]) -> tuple[int, ...]:
    """Every step behind those whose tensors it takes: wave by wave, in each wave by number."""
    needs = [{makers[tensor] for tensor in step.inputs.values() if tensor in makers} for step in steps]
    takers: list[list[int]] = [[] for _ in steps]
    for number, needed in enumerate(needs):
        for maker in needed:
            takers[maker].append(number)
    missing = [len(needed) for needed in needs]
    order: list[int] = []
    wave = [number for number, count in enumerate(missing) if not count]
    while wave:
        order += wave
        following = []
        for taker in (taker for maker in wave for taker in takers[maker]):
            missing[taker] -= 1
            if not missing[taker]:
                following.append(taker)
        wave = sorted(following)
    if len(order) < len(steps):
        raise ConfigError(f"the steps wait for each other: {_cycle(steps, makers, needs, set(order))}")
    return tuple(order)


def _cycle(steps: Sequence[StepConfig], makers: Mapping[str, int], needs: Sequence[set[int]], done: set[int]) -> str:
    """Some cycle among the steps that are left, as "step 1 takes 'x' from step 2, ..."."""
    number = next(number for number in range(len(steps)) if number not in done)
    path: list[int] = []
    while number not in path:
        path.append(number)
        number = next(needed for needed in sorted(needs[number]) if needed not in done)
    links = []
    for taker in path[path.index(number) :]:
        tensor, maker = next(
            (t, makers[t]) for t in steps[taker].inputs.values() if makers.get(t, -1) in needs[taker] - done
        )
        links.append(f"step {taker + 1} takes {tensor!r} from step {maker + 1}")
    return ", ".join(links)


def _check_names(
    step: str, kind: str, mapping: Mapping[str, str], known: Mapping[str, TensorSpec], *, complete: bool = False
) -> None:
    for name in mapping:
        if name not in known:
            raise ConfigError(f"{step}: the model has no {kind} {name!r}; it has {_listed(known)}")
    missing = [name for name in known if complete and name not in mapping]
    if missing:
        raise ConfigError(f"{step}: {kind} {missing[0]!r} of the model gets no tensor; map every {kind}")


def _configured(tensor: TensorConfig, max_batch_size: int) -> TensorSpec:
    assert tensor.dims is not None
    return TensorSpec(tensor.name, dtypes.from_name(tensor.datatype).numpy, _full(tensor.dims, max_batch_size))


def _full(dims: Sequence[int], max_batch_size: int) -> tuple[int, ...]:
    """Configured dims leave the batch dimension out."""
    return (DYNAMIC, *dims) if max_batch_size else tuple(dims)


def _shown(spec: TensorSpec) -> str:
    return f"{dtypes.from_numpy(spec.dtype).name} {list(spec.shape)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
