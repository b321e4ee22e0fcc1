"""A repository of every way that is known to serve one classifier, protected, to measure them.

``model`` is the Python model that Triton runs for those of them that are written in Python.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from deploy.benchmarks import threads
from deploy.repository import model_config, victim_graph
from exporters.graph import onnx_graph
from exporters.protect import protect
from exporters.reading.classifier import ProtectOptions
from exporters.repository import model_repository
from postprocess.errors import InputError

VICTIM, ENSEMBLE, FUSED = "victim alone", "ensemble", "fused"
ONE_PROCESS, BLS, ART, LABELS = "one Python model", "BLS", "ART", "labels only"
#: An ensemble whose last step passes the scores on: what the hop costs, whatever is done in it.
EMPTY = "empty step"
#: What is measured, in the order of the tables.
WAYS = (VICTIM, ENSEMBLE, EMPTY, FUSED, ONE_PROCESS, BLS, ART, LABELS)
#: The classifier alone with other threads than its config.pbtxt says, measured if asked for.
THREADS = threads.WAYS


def build(repository: Path, name: str, ways: tuple[str, ...], folder: Path) -> dict[str, str]:
    """Return way to model name, all of them written to a new repository.

    None shares a process with another: one that several ways ask would be kept warm by them.

    Args:
        repository: that holds the ensemble layout of the model; it is only read.
        name: the public one.
        ways: of ``WAYS`` and ``THREADS``.
        folder: of the new repository.

    Raises:
        InputError: the model is not of the ensemble layout, or cannot be fused.
    """
    classifier, parameters = victim_graph.find(repository, name)
    victim = classifier.path.parent.parent.name
    config = model_config.read(repository / victim / "config.pbtxt")
    if model_config.fused_output(config) is not None or len(config.input) != 1:
        raise InputError(f"benchmark: expected {name} in the ensemble layout, with one input")
    ensemble = model_config.read(repository / name / "config.pbtxt")
    for model in (name, *model_config.step_names(ensemble)):
        shutil.copytree(repository / model, folder / model, dirs_exist_ok=True)
    models = {VICTIM: _copy(folder / victim, config, f"{name}_alone"), ENSEMBLE: name}
    if EMPTY in ways:
        models[EMPTY] = _write_empty(folder, name)
    if FUSED in ways:
        models[FUSED] = f"{name}_fused"
        asked = ProtectOptions(
            name=models[FUSED],
            layout="fused",
            scores=parameters.scores,
            output=(classifier.output,),
            max_batch_size=config.max_batch_size,
        )
        protect(classifier.path, folder, parameters, asked)
    said = json.dumps(parameters.to_strings())
    for way, short in ((ONE_PROCESS, "one_process"), (BLS, "bls"), (ART, "art")):
        if way in ways:
            models[way] = f"{name}_{short}"
            made = _python(config, models[way])
            asks = _copy(folder / victim, config, f"{name}_asked") if way == BLS else victim
            strings = {"way": short, "victim": asks, "parameters": said}
            strings |= {"onnx": str(folder / victim / "1" / classifier.path.name)}
            strings |= {"beta": f"{parameters.beta:g}", "gamma": f"{parameters.gamma:g}"}
            for key, value in strings.items():
                made.parameters[key].string_value = value
            _write(folder, made)
            shutil.copyfile(
                Path(__file__).with_name("model.py"), folder / models[way] / "1" / "model.py"
            )
    if LABELS in ways:
        models[LABELS] = f"{name}_labels"
        _write_labels(folder, models[LABELS], config, classifier)
    for way, said_of_threads in THREADS.items():
        if way in ways:
            models[way] = _copy(folder / victim, config, f"{name}_{way.replace(' ', '_')}")
            made = _named(config, models[way])
            said_of_threads.put(made)
            _write(folder, made)
    return {way: models[way] for way in (*WAYS, *THREADS) if way in ways}


def victim_config(repository: Path, name: str) -> Path:
    """Return the config.pbtxt of the classifier behind a model.

    Raises:
        InputError: there is no such model, or it is fused.
    """
    classifier, _ = victim_graph.find(repository, name)
    return classifier.path.parent.parent / "config.pbtxt"


def _copy(model: Path, config: Any, name: str) -> str:
    """Return the name of another model with the same files, the only difference."""
    shutil.copytree(model, model.with_name(name))
    _write(model.parent, _named(config, name))
    return name


def _named(config: Any, name: str) -> Any:
    made = type(config)()
    made.CopyFrom(config)
    made.name = name
    return made


def _python(config: Any, name: str) -> Any:
    made = _named(config, name)
    made.backend = "python"
    made.parameters.clear()
    return made


def _write_empty(folder: Path, name: str) -> str:
    """Return the name of the ensemble, written anew with steps that do nothing for its defences."""
    config = model_config.read(folder / name / "config.pbtxt")
    made = _named(config, f"{name}_empty")
    for step in made.ensemble_scheduling.step:
        model, step.model_name = step.model_name, f"{step.model_name}_empty"
        one = model_config.read(folder / model / "config.pbtxt")
        if model_config.is_defence(one):
            passing = _python(one, step.model_name)
            passing.parameters["way"].string_value = "empty"
            _write(folder, passing)
            shutil.copyfile(
                Path(__file__).with_name("model.py"), folder / step.model_name / "1" / "model.py"
            )
        else:
            _copy(folder / model, one, step.model_name)
    _write(folder, made)
    return str(made.name)


def _write(folder: Path, config: Any) -> None:
    from google.protobuf import text_format

    (folder / config.name / "1").mkdir(parents=True, exist_ok=True)
    (folder / config.name / "config.pbtxt").write_text(text_format.MessageToString(config))


def _write_labels(folder: Path, name: str, config: Any, classifier: Any) -> None:
    """Write the classifier with an ArgMax at its end."""
    from onnx import TensorProto, helper

    model = onnx_graph.load(classifier.path)
    label = "top1"
    model.graph.node.append(
        helper.make_node("ArgMax", [classifier.output], [label], axis=-1, keepdims=1)
    )
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(label, TensorProto.INT64, ["n", 1]))
    made = _named(config, name)
    del made.output[:]
    output = made.output.add(name=label, data_type=TRITON_INT64)
    output.dims.append(1)
    _write(folder, made)
    path = model_repository.fused_onnx_path(folder, name)
    path.write_bytes(model.SerializeToString())
    for other in classifier.path.parent.iterdir():  # weights in files of their own
        if other.name not in ("model.onnx", ".gitkeep"):
            shutil.copy2(other, path.parent)


#: ``TYPE_INT64`` of Triton's model_config.proto.
TRITON_INT64 = 5
