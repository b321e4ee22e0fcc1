"""The classifier behind a protected model of a repository, as a graph that can be run."""

from pathlib import Path
from typing import Any

from deploy.repository import model_config, retuning
from exporters.fusing import fused
from exporters.graph import onnx_graph
from exporters.repository import versions
from load_tests.tune.recorded import OnnxVictim
from postprocess.errors import InputError
from postprocess.parameters import Parameters


def find(repository: Path, name: str, output: str = "") -> tuple[OnnxVictim, Parameters]:
    """Return a protected model's classifier without the defence, and the defence's parameters.

    Args:
        repository: of the models.
        name: the public one, of either layout.
        output: which of several outputs, each with a defence of its own; the only one by default.

    Raises:
        InputError: no such model or output, several outputs and none said, no defence that reads
            an ONNX classifier's scores, or classes on another axis than the last.
    """
    path = repository / name / "config.pbtxt"
    config = model_config.of_model(repository / name)
    fused_output = model_config.fused_output(config)
    if fused_output is not None:
        retuning.refuse_other_output(path, output, [fused_output])
        return _inside(_file(repository / name, config))
    defences = retuning.defences_of(repository / name, output)
    if len(defences) > 1:
        names = [tensor.name for tensor in config.output]
        raise InputError(
            f"{path}: several outputs have a defence of their own; choose one with --output, of "
            f"{', '.join(names)}"
        )
    (where,) = defences
    parameters = Parameters.from_strings(
        model_config.strings(model_config.read(where)), where=str(where)
    )
    steps = list(config.ensemble_scheduling.step)
    read = {
        tensor
        for step in steps
        if step.model_name == where.parent.name and output in ("", *step.output_map.values())
        for tensor in step.input_map.values()
    }
    for step in steps:
        victim = model_config.read(repository / step.model_name / "config.pbtxt")
        for made, tensor in step.output_map.items():
            if tensor in read and model_config.backend_of(victim) == "onnxruntime":
                _refuse_processed(path, step, {given.name for given in config.input})
                file = _file(repository / step.model_name, victim)
                model = onnx_graph.load(file)
                _refuse_other_axis(model, made, parameters, str(where))
                graph = model.SerializeToString()
                return _victim(file, graph, made, parameters), parameters
    raise InputError(f"{path}: expected a protected model: a defence that reads an ONNX classifier")


def _refuse_processed(path: Path, step: Any, given: set[str]) -> None:
    """Refuse a classifier that does not get what clients send: their rows are none of its."""
    between = sorted({*step.input_map.values()} - given)
    if between:
        raise InputError(
            f"{path}: its step {step.model_name} reads {between[0]}, which another step makes of "
            "what clients send, so it cannot be asked about their rows here"
        )


def _refuse_other_axis(model: Any, output: str, parameters: Parameters, where: str) -> None:
    """Refuse classes on another axis than the last, which nobody here looks at."""
    shapes = [value.shape for value in onnx_graph.outputs(model) if value.name == output]
    rank = len(shapes[0] or ()) if shapes else 0
    if parameters.class_axis != -1 and (not rank or parameters.class_axis % rank != rank - 1):
        raise InputError(
            f"{where}: parameter class_axis: expected the last axis of output {output} here, got "
            f"{parameters.class_axis}; a Transpose behind it puts them there"
        )


def _file(folder: Path, config: Any) -> Path:
    """Return the graph of the newest version that is served."""
    file = versions.graph((versions.served(folder, config) or [folder / "1"])[-1], config)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    return file


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
    graph = model.SerializeToString()
    return _victim(file, graph, fused.VICTIM_SCORES, parameters), parameters


def _victim(file: Path, graph: bytes, output: str, said: Parameters) -> OnnxVictim:
    return OnnxVictim(file, graph, output, said.scores == "probabilities", said.multi_label)
