"""Which models of a live Triton answer with our defence's numbers, and what stands before it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.repository.model_config import (
    data_type_name,
    fused_output,
    holds_floats,
    is_defence,
)
from postprocess.defence_config import DATA_TYPES

#: How long Triton may take to tell a configuration.
TIMEOUT_S = 5


@dataclass(frozen=True)
class VictimStep:
    """The step whose output the defence reads, where clients' own tensors feed it."""

    model: str
    #: The model's input to the ensemble's.
    inputs: Mapping[str, str]
    output: str


@dataclass(frozen=True)
class ProtectedModel:
    """A model whose answer is our defence's: an ensemble, or a fused model.

    One of several heads, each with a defence of its own, is as many as that, which differ in
    ``output`` and ``defence``.
    """

    name: str
    #: The model that perturbs: a step of the ensemble, or a fused model.
    defence: str
    #: The output that the defence writes.
    output: str
    #: None where another step stands between the clients and the classifier, and where the
    #: defence is in the classifier's own graph.
    victim: VictimStep | None
    #: Every model that an ensemble runs for this output, in the order of its steps; of a fused
    #: one, itself.
    models: tuple[str, ...]
    #: The defence is in the classifier's own graph.
    fused: bool = False
    #: What people read: the name, and with several outputs of floats which one this is.
    title: str = ""


def read_configs(client: Any) -> dict[str, Any]:
    """Return the configuration of every ready model, by its name, as it is in force.

    Raises:
        InferenceServerException: Triton did not answer.
    """
    index = client.get_model_repository_index(client_timeout=TIMEOUT_S).models
    ready = sorted({entry.name for entry in index if entry.state == "READY"})
    return {name: client.get_model_config(name, client_timeout=TIMEOUT_S).config for name in ready}


def among(configs: Mapping[str, Any]) -> list[ProtectedModel]:
    """Return those of some models that end in a defence, in the order of their names.

    Each is there once for every output that a defence makes.
    """
    return [one for name in sorted(configs) for one in _protected(configs[name], configs)]


def raw_outputs(config: Any, configs: Mapping[str, Any]) -> list[str]:
    """Return the outputs of floats of a model that no defence makes; ``configs`` are of all."""
    made = {one.output for one in _protected(config, configs)}
    floats = [one.name for one in config.output if holds_floats(one)]
    return [name for name in floats if name not in made]


def _protected(config: Any, configs: Mapping[str, Any]) -> Iterator[ProtectedModel]:
    name = config.name
    own = fused_output(config)
    if own is not None:
        yield ProtectedModel(name, name, own, None, (name,), fused=True, title=name)
    outputs = {output.name for output in config.output}
    floats = [one for one in config.output if data_type_name(one) in DATA_TYPES]
    steps = list(config.ensemble_scheduling.step)
    heads = []
    for step in steps:
        defence = configs.get(step.model_name)
        inside = None if defence is None else fused_output(defence)
        fused = inside is not None and inside in step.output_map
        if defence is not None and (fused or is_defence(defence)):
            made = [step.output_map[inside]] if fused else step.output_map.values()
            heads += [(step, fused, one) for one in sorted(outputs.intersection(made))[:1]]
    others = {step.model_name for step, _, _ in heads}
    for step, fused, output in heads:
        models = [one.model_name for one in steps if one is step or one.model_name not in others]
        yield ProtectedModel(
            name=name,
            defence=step.model_name,
            output=output,
            victim=None if fused else _victim(config, steps, set(step.input_map.values())),
            models=tuple(models),
            fused=fused,
            title=f"{name}/{output}" if len(floats) > 1 else name,
        )


def _victim(config: Any, steps: list[Any], read: set[str]) -> VictimStep | None:
    given = {tensor.name for tensor in config.input}
    for step in steps:
        for output, tensor in step.output_map.items():
            if tensor in read and set(step.input_map.values()) <= given:
                return VictimStep(step.model_name, dict(step.input_map), output)
    return None
