"""Which models of a live Triton answer with our defence's numbers, and what stands before it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.repository.model_config import fused_output, is_defence

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
    """A model whose answer is our defence's: an ensemble, or a fused model."""

    name: str
    #: The model that perturbs: a step of the ensemble, or a fused model.
    defence: str
    #: The output that the defence writes.
    output: str
    #: None where another step stands between the clients and the classifier, and where the
    #: defence is in the classifier's own graph.
    victim: VictimStep | None
    #: Every model that an ensemble runs, in the order of its steps; of a fused one, itself.
    models: tuple[str, ...]
    #: The defence is in the classifier's own graph.
    fused: bool = False


def find(client: Any) -> list[ProtectedModel]:
    """Return every ready model that ends in a defence, in the order of their names.

    Raises:
        InferenceServerException: Triton did not answer.
    """
    return among(read_configs(client))


def read_configs(client: Any) -> dict[str, Any]:
    """Return the configuration of every ready model, by its name, as it is in force.

    Raises:
        InferenceServerException: Triton did not answer.
    """
    index = client.get_model_repository_index(client_timeout=TIMEOUT_S).models
    ready = sorted({entry.name for entry in index if entry.state == "READY"})
    return {name: client.get_model_config(name, client_timeout=TIMEOUT_S).config for name in ready}


def among(configs: Mapping[str, Any]) -> list[ProtectedModel]:
    """Return those of some models that end in a defence, in the order of their names."""
    found = (_protected(configs[name], configs) for name in sorted(configs))
    return [one for one in found if one is not None]


def _protected(config: Any, configs: Mapping[str, Any]) -> ProtectedModel | None:
    own = fused_output(config)
    if own is not None:
        return ProtectedModel(config.name, config.name, own, None, (config.name,), fused=True)
    outputs = {output.name for output in config.output}
    steps = list(config.ensemble_scheduling.step)
    for step in steps:
        answered = sorted(outputs & set(step.output_map.values()))
        defence = configs.get(step.model_name)
        if not answered or defence is None:
            continue
        inside = fused_output(defence)
        fused = inside is not None and inside in step.output_map
        if fused or is_defence(defence):
            return ProtectedModel(
                name=config.name,
                defence=step.model_name,
                output=answered[0],
                victim=None if fused else _victim(config, steps, set(step.input_map.values())),
                models=tuple(step.model_name for step in steps),
                fused=fused,
            )
    return None


def _victim(config: Any, steps: list[Any], read: set[str]) -> VictimStep | None:
    given = {tensor.name for tensor in config.input}
    for step in steps:
        for output, tensor in step.output_map.items():
            if tensor in read and set(step.input_map.values()) <= given:
                return VictimStep(step.model_name, dict(step.input_map), output)
    return None
