"""A data set in, a model repository out: train, export, check, assemble."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporters import question
from exporters.files import servable_path
from exporters.files.atomic_file import write_text
from exporters.graph import onnx_signature
from exporters.graph.onnx_run import Feed, OnnxSession
from exporters.quiet_import import import_quietly
from exporters.repository import config_pbtxt, model_repository
from exporters.training import architectures, datasets, keras_to_onnx
from exporters.training.datasets import Dataset
from exporters.training.train import Progress, predict, train_victim
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.question import path_in

#: Opens a stage by its title and yields the callback for the steps within it.
Stage = Callable[[str], AbstractContextManager[Progress]]

#: Rows of the test set that Keras and onnxruntime are compared on.
PARITY_ROWS = 256


@dataclass(frozen=True)
class Exported:
    """What an export made."""

    onnx: Path
    accuracy: float  #: the victim's, on the test set
    parity: float  #: largest difference of a logit, Keras against onnxruntime
    kept: list[Path]  #: files that existed, differ from what would be written, and were kept


def export_classifier(
    dataset: Dataset,
    repository: Path,
    parameters: Parameters,
    *,
    name: str,
    architecture: str,
    steps: int,
    seed: int,
    stage: Stage,
    max_client_batch: int | None = None,
) -> Exported:
    """Train a victim, write its ONNX file and the three models around it; return what was made.

    It learns from the two thirds of the training set that ``datasets.hold_off`` leaves to the
    victim, so that the adversary's third is new to it (paper, section 4).

    Args:
        dataset: to learn.
        repository: the model repository; created if need be, existing files are kept.
        parameters: of the defence.
        name: the public model name.
        architecture: one of ``architectures.ARCHITECTURES``.
        steps: training batches of 64.
        seed: of the hold-off, the initial weights, the shuffles and the augmentation.
        stage: shows progress.
        max_client_batch: most rows of a client's request, see ``model_repository.files``.

    Raises:
        InputError: an unknown architecture, a file that cannot be written, or one that exists
            and describes a classifier of another shape.
        ParityError: the ONNX graph does not compute what Keras computes.
    """
    dataset = architectures.view(architecture, dataset)  # before anything is written
    servable_path.refuse(repository)
    # Write access and configs first: no one should learn of a typo after an hour of training.
    onnx = model_repository.onnx_path(repository, name)
    signature = onnx_signature.of_classifier(dataset.input_shape, dataset.classes)
    files = model_repository.files(name, signature, parameters, max_client_batch=max_client_batch)
    kept = model_repository.write(repository, files)
    model_repository.refuse_other_tensors(kept, signature)
    with stage("load TensorFlow"):
        import_quietly("keras", "tensorflow")
    with stage(f"train the victim, {architecture} on {dataset.name}") as progress:
        held_off = datasets.hold_off(dataset, seed=seed)
        model = train_victim(
            dataset, held_off, architecture, steps=steps, seed=seed, progress=progress
        )
    with stage("export it to ONNX and check it against Keras"):
        logits = predict(model, dataset.x_test)
        accuracy = float(np.mean(logits.argmax(axis=1) == dataset.y_test))
        parity = keras_to_onnx.export(model, onnx, check_on=dataset.x_test[:PARITY_ROWS])
        if onnx_signature.read(onnx) != signature:
            raise InputError(f"{onnx}: its tensors are not those of config.pbtxt")
        clear = question.confidences(logits, single=False).argsort()[::-1]
        clearest = dataset.x_test[clear[: question.CANDIDATES]]
        _write_question(repository, name, ({signature.inputs[0].name: x[None]} for x in clearest))
    return Exported(onnx, accuracy, parity, kept)


def _write_question(repository: Path, name: str, candidates: Iterable[Feed]) -> None:
    """Keep the input that health checks ask about; without one they make a question up."""
    runner = OnnxSession(model_repository.onnx_path(repository, name))
    config = repository / model_repository.defence_name(name) / "config.pbtxt"

    def raw(feed: Feed) -> Any:
        return runner(feed, [onnx_signature.OUTPUT_NAME])[onnx_signature.OUTPUT_NAME]

    path = path_in(repository, name)
    try:
        parameters = config_pbtxt.read_parameters(config)
        model = question.AnswerSource(
            raw, Postprocessor(parameters), parameters, onnx_signature.OUTPUT_NAME, batched=True
        )
    except InputError:  # a file of the operator's own, with a secret or not ours to read
        path.unlink(missing_ok=True)
        return
    kept = question.choose(model, candidates)
    if kept is not None:
        write_text(path, kept.text())
