"""The classifier behind a protected model of a repository, as a graph that can be run."""

from pathlib import Path
from typing import Any

from deploy.repository import model_config
from exporters import fused, onnx_graph, versions
from load_tests.tune.recorded import OnnxVictim
from postprocess.errors import InputError
from postprocess.parameters import Parameters


def find(repository: Path, name: str) -> tuple[OnnxVictim, Parameters]:
    """Return a protected model's classifier without the defence, and the defence's parameters.

    Args:
        repository: of the models.
        name: the public one, of either layout.

    Raises:
        InputError: no such model, no defence that reads an ONNX classifier's scores, or classes
            on another axis than the last.
    """
    path = repository / name / "config.pbtxt"
    config = model_config.read(path)
    if model_config.fused_output(config) is not None:
        file = _file(repository / name, config)
        return _inside(file)
    configs = {
        step.model_name: model_config.read(repository / step.model_name / "config.pbtxt")
        for step in config.ensemble_scheduling.step
    }
    for step in config.ensemble_scheduling.step:
        defence = configs[step.model_name]
        if not model_config.is_defence(defence):
            continue
        where = str(repository / step.model_name / "config.pbtxt")
        parameters = Parameters.from_strings(model_config.strings(defence), where=where)
        (read,) = step.input_map.values()
        for other in config.ensemble_scheduling.step:
            for output, tensor in other.output_map.items():
                victim = configs[other.model_name]
                if tensor == read and victim.backend == "onnxruntime":
                    file = _file(repository / other.model_name, victim)
                    _refuse_other_axis(onnx_graph.load(file), output, parameters, where)
                    probabilities = parameters.scores == "probabilities"
                    return OnnxVictim(file, _bytes(file), output, probabilities), parameters
    raise InputError(f"{path}: expected a protected model: a defence that reads an ONNX classifier")


def _refuse_other_axis(model: Any, output: str, parameters: Parameters, where: str) -> None:
    """Refuse classes on another axis than the last, which nobody here looks at."""
    shapes = [value.shape for value in onnx_graph.outputs(model) if value.name == output]
    rank = len(shapes[0] or ()) if shapes else 0
    if parameters.class_axis != -1 and (not rank or parameters.class_axis % rank != rank - 1):
        raise InputError(
            f"{where}: parameter class_axis: expected the last axis of output {output} here, got "
            f"{parameters.class_axis}; one answer for each row is judged, not one for each pixel"
        )


def _file(folder: Path, config: Any) -> Path:
    """Return the graph of the newest version that is served."""
    file = versions.graph((versions.served(folder, config) or [folder / "1"])[-1], config)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    return file


def _bytes(file: Path) -> bytes:
    return onnx_graph.load(file).SerializeToString()  # type: ignore[no-any-return]


def _inside(file: Path) -> tuple[OnnxVictim, Parameters]:
    """Return the graph with the scores inside as its only output."""
    import onnx

    model = onnx_graph.load(file)
    parameters = fused.read_parameters(model, where=str(file))
    made = fused.output_of(model)
    (output,) = [value for value in model.graph.output if value.name == made]
    raw = onnx.helper.make_tensor_value_info(
        fused.VICTIM_SCORES, output.type.tensor_type.elem_type, None
    )
    del model.graph.output[:]
    model.graph.output.append(raw)
    _refuse_other_axis(onnx_graph.load(file), made, parameters, str(file))
    probabilities = parameters.scores == "probabilities"
    return (
        OnnxVictim(file, model.SerializeToString(), fused.VICTIM_SCORES, probabilities),
        parameters,
    )
