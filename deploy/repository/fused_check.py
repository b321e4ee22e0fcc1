"""Fused models, looked at: whether the graph defends as its config.pbtxt says."""

from pathlib import Path
from typing import Any

from deploy.repository import model_config
from deploy.repository.finding import Finding, raw_output
from exporters.fusing import fused
from exporters.graph import onnx_graph
from exporters.repository.config_pbtxt import FUSED_MARK
from postprocess import defence_config
from postprocess.defence_config import DATA_TYPES, DefenceConfig
from postprocess.errors import InputError


def read(folder: Path, config: Any, marked: str, files: list[Path]) -> DefenceConfig:
    """Return the defence in a fused model's graph.

    Args:
        folder: of the model.
        config: its ``ModelConfig``.
        marked: the output that the defence makes, as the config says.
        files: the ONNX file of each version.

    Raises:
        InputError: a version's graph has no defence, or not the one that it says, or it makes
            another output.
    """
    where = folder / "config.pbtxt"
    outputs = {output.name: output for output in config.output}
    if marked not in outputs or model_config.data_type_name(outputs[marked]) not in DATA_TYPES:
        raise InputError(
            f"{where}: parameter {FUSED_MARK}: expected the name of an output of floats, "
            f"got {marked!r}"
        )
    if not files:
        raise InputError(f"{folder}: expected a version with the defence in its graph")
    for file in files:
        model = onnx_graph.load(file)
        parameters = fused.read_parameters(model, where=str(file))
        try:
            fused.refuse_altered(model)
            made = fused.output_of(model)
        except InputError as refusal:
            raise InputError(f"{file}: {refusal}") from None
        if made != marked:
            raise InputError(f"{where}: parameter {FUSED_MARK}: expected {made}, got {marked}")
    output = outputs[marked]
    data_type = DATA_TYPES[model_config.data_type_name(output)]
    names = ", ".join(given.name for given in config.input)
    dims = [int(size) for size in output.dims]
    batched = bool(config.max_batch_size)
    axis = defence_config.class_axis(parameters, dims, batched=batched, where=str(where))
    return DefenceConfig(parameters, names, marked, data_type, dims[axis], axis)


def raw_outputs(folder: Path, config: Any, made: str) -> list[Finding]:
    """Return which outputs hold floats that no defence has perturbed."""
    return [
        raw_output(folder / "config.pbtxt", output.name)
        for output in config.output
        if output.name != made and model_config.holds_floats(output)
    ]
