"""An ONNX file in, protected models out: read, cut, write, verify, and only then put in place.

Two layouts: three models of which the last is the defence, or one with the defence in its graph.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import postprocess
from exporters import (
    fused,
    graph_ending,
    model_repository,
    onnx_graph,
    question,
    servable_path,
    versions,
)  # fmt: skip
from exporters.classifier import Classifier, ProtectOptions, understand
from exporters.onnx_run import Feed, OnnxSession
from exporters.placing import place
from exporters.score_kind import ScoreKind
from exporters.verify import CutError, Verified, verify, verify_fused
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.question import path_in

LAYOUTS = ("ensemble", "fused")


@dataclass(frozen=True)
class ProtectedFile:
    """What was found in the graph and written around it."""

    classifier: Classifier
    name: str  #: the public model name
    models: tuple[str, ...]  #: all that were written, the public one first
    repository: Path
    scores: ScoreKind  #: as they were written
    parameters: Parameters
    verified: Verified
    files: list[Path]


def protect(
    path: Path, repository: Path, parameters: Parameters, asked: ProtectOptions
) -> ProtectedFile:
    """Write the models of an ONNX classifier and return what they are.

    Args:
        path: the ONNX file; it and its data files are only read.
        repository: the model repository; created if need be.
        parameters: of the defence; ``scores``, ``multi_label`` and ``class_axis`` are replaced
            by what is found.
        asked: the rest.

    Raises:
        InputError: the graph is none that can be protected, or what was asked does not fit it;
            nothing is written then.
    """
    name = asked.name or path.stem
    where = "--name" if asked.name else f"{path}: its name is no model's, so give --name"
    model_repository.refuse_name(name, where=where)
    servable_path.refuse(repository)
    if asked.layout == "fused":
        _refuse_for_fused(repository, name, parameters, asked)
    elif asked.layout != "ensemble":
        raise InputError(f"--layout: expected {' or '.join(LAYOUTS)}, got {asked.layout!r}")
    _refuse_existing(repository, name, asked.layout, force=asked.force)
    try:
        classifier = understand(path, asked)
        with _folder_beside(repository) as folder:
            staged = Path(folder)
            scores, parameters, verified = _write_verified(classifier, staged, name, parameters)
            if verified.refused:
                classifier.warnings.append(
                    f"the defence refuses {verified.refused} of "
                    f"{verified.rows + verified.refused} rows tried: no probabilities"
                )
            models = _models(name, asked.layout)
            files = _in_order(staged, (*models[1:], name))
            place(staged, repository, files)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{error.filename or repository}: cannot be written: {reason}") from None
    except InputError as error:
        if str(error).startswith(str(path)):
            raise
        raise InputError(f"{path}: {error}") from None
    paths = [repository / file for file in files]
    return ProtectedFile(classifier, name, models, repository, scores, parameters, verified, paths)


def _write_verified(
    classifier: Classifier, folder: Path, name: str, parameters: Parameters
) -> tuple[ScoreKind, Parameters, Verified]:
    """Write the three models to a folder and return what was verified of them."""
    try:
        return _write(classifier, folder, name, parameters, classifier.scores)
    except CutError as error:
        if classifier.asked.scores == "logits":
            raise
        classifier.warnings.append(f"left as probabilities: {error}")
    uncut = replace(classifier.scores, kind="probabilities", cut=None)
    return _write(classifier, folder, name, parameters, uncut)


def _write(
    classifier: Classifier, folder: Path, name: str, parameters: Parameters, scores: ScoreKind
) -> tuple[ScoreKind, Parameters, Verified]:
    parameters = replace(
        parameters,
        scores=scores.kind,
        multi_label=scores.multi_label,
        class_axis=classifier.signature.class_axis,
    )
    onnx = model_repository.onnx_path(folder, name)
    onnx.parent.mkdir(parents=True, exist_ok=True)
    model = _scores_only(classifier, scores)
    _write_onnx(classifier, onnx, model)
    texts = model_repository.files(
        name,
        classifier.signature,
        parameters,
        self_contained=classifier.asked.self_contained,
        max_client_batch=classifier.asked.max_client_batch,
    )
    for relative, text in texts.items():
        file = folder / relative
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    if classifier.asked.self_contained:
        _vendor(folder / model_repository.defence_name(name) / "1" / "postprocess")
    verified = verify(folder, name, classifier, parameters, scores)
    if classifier.asked.layout == "fused":
        _write_fused(classifier, folder, name, parameters, model)
        verify_fused(folder, name, classifier, parameters, scores)
    _write_question(classifier, folder, name, parameters)
    return scores, parameters, verified


def _write_question(
    classifier: Classifier, folder: Path, name: str, parameters: Parameters
) -> None:
    """Keep a question that health checks can ask, and warn where it tells them little."""
    runner, output = OnnxSession(model_repository.onnx_path(folder, name)), classifier.value.name

    def raw(feed: Feed) -> Any:
        return runner(feed, [output])[output]

    model = question.AnswerSource(
        raw,
        Postprocessor(parameters),
        parameters,
        output,
        classifier.signature.batched,
        axis=parameters.class_axis,
    )
    candidates = question.most_confident(
        classifier.source, classifier.evidence, single=parameters.multi_label
    )
    kept = question.choose(model, candidates)
    if kept is None or not kept.looks.tells_raw:
        classifier.warnings.append(
            "on no row tried does a protected answer differ enough from a raw one for health "
            "checks to tell them apart; give confident rows with --sample"
        )
    if kept is not None:
        path_in(folder, name).write_text(kept.text(), encoding="utf-8")


def _write_fused(
    classifier: Classifier, folder: Path, name: str, parameters: Parameters, model: Any
) -> None:
    fused.fuse(model, classifier.value.name, parameters)
    _write_onnx(classifier, model_repository.fused_onnx_path(folder, name), model)
    texts = model_repository.fused_files(name, classifier.signature, parameters)
    for relative, text in texts.items():
        (folder / relative).write_text(text, encoding="utf-8")


def _scores_only(classifier: Classifier, scores: ScoreKind) -> Any:
    """Return the graph with the scores and the labels as its only outputs, cut if need be."""
    model = type(classifier.model)()
    model.CopyFrom(classifier.model)
    onnx_graph.keep_outputs(
        model, [classifier.value.name, *(label.name for label in classifier.labels)]
    )
    onnx_graph.declare(model.graph.input, classifier.inputs)
    onnx_graph.declare(model.graph.output, [classifier.value, *classifier.labels])
    if scores.cut is not None:
        graph_ending.cut(model, classifier.value.name, scores.cut)
    return model


def _write_onnx(classifier: Classifier, path: Path, model: Any) -> None:
    path.write_bytes(model.SerializeToString())
    for location in classifier.external:
        target = path.parent / location
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copyfile(classifier.path.parent / location, target)


def _models(name: str, layout: str) -> tuple[str, ...]:
    """Return the models of a layout, the public one first."""
    return (name,) if layout == "fused" else model_repository.model_names(name)


def _refuse_for_fused(
    repository: Path, name: str, parameters: Parameters, asked: ProtectOptions
) -> None:
    fused.refuse_inexpressible(parameters)
    if asked.self_contained:
        raise InputError("--self-contained: a fused model needs no package beside it")
    if asked.max_client_batch is not None:
        raise InputError(
            "--max-client-batch: in a fused model max_batch_size limits clients and what Triton "
            "merges alike; give --max-batch-size, or --layout ensemble"
        )
    for model in model_repository.model_names(name)[1:]:
        folder = repository / model
        if folder.exists():
            raise InputError(
                f"{folder} exists, of the ensemble layout: remove it first, or it would be served "
                "beside the fused model"
            )


def _refuse_existing(repository: Path, name: str, layout: str, *, force: bool) -> None:
    if repository.exists() and not repository.is_dir():
        raise InputError(f"--repository {repository}: expected a folder")
    for model in _models(name, layout):
        folder = repository / model
        if folder.exists() and not force:
            raise InputError(f"{folder} exists; give --force to replace it")
        for version in versions.folders(folder):
            if version.name != "1":
                raise InputError(
                    f"{version} exists, and Triton serves the highest version; remove it"
                )


def _folder_beside(repository: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder, on the repository's file system if may be, but not in it."""
    parent = repository.absolute().parent
    while not parent.is_dir():
        parent = parent.parent
    writable = os.access(parent, os.W_OK)
    return tempfile.TemporaryDirectory(dir=parent if writable else None, prefix=".reverse-sigmoid-")


def _in_order(staged: Path, models: tuple[str, ...]) -> list[str]:
    """Return the relative paths of the models' files, each config after the rest of its model."""
    order = []
    for model in models:
        files = [file for file in (staged / model).rglob("*") if file.is_file()]
        files.sort(key=lambda file: (file.name == "config.pbtxt", str(file)))
        order += [str(file.relative_to(staged)) for file in files]
    return order


def _vendor(folder: Path) -> None:
    """Copy the package ``postprocess``, with its compiled kernel if it has one."""
    folder.mkdir(parents=True, exist_ok=True)
    package = Path(postprocess.__file__).parent
    for file in (*package.glob("*.py"), *package.glob("_kernel*.so")):
        shutil.copyfile(file, folder / file.name)
