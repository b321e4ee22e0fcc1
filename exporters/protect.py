"""An ONNX file in, protected models out: read, cut, write, verify, and only then put in place.

Two layouts: three models of which the last is the defence, or one with the defence in its graph.
In the first, each of several heads has a defence of its own.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import postprocess
from exporters import question  # fmt: skip
from exporters.files import servable_path  # fmt: skip
from exporters.files.owned_folders import owned_folder
from exporters.files.placing import place
from exporters.fusing import fused  # fmt: skip
from exporters.graph import onnx_graph  # fmt: skip
from exporters.graph.onnx_run import OnnxSession
from exporters.reading import graph_ending  # fmt: skip
from exporters.reading.classifier import Classifier, Head, ProtectOptions, understand
from exporters.repository import model_repository, record, versions  # fmt: skip
from exporters.verify import CutError, Verified, verify, verify_fused
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.question import path_in, text_of

#: Of the hidden folder in which models are written before they are moved to their places.
PREFIX = ".reverse-sigmoid-"
LAYOUTS = ("ensemble", "fused")


@dataclass(frozen=True)
class ProtectedHead(Head):
    """An output of scores, as it was written."""

    parameters: Parameters
    verified: Verified


@dataclass(frozen=True)
class ProtectedFile:
    """What was found in the graph and written around it."""

    classifier: Classifier
    name: str  #: the public model name
    models: tuple[str, ...]  #: all that were written, the public one first
    repository: Path
    heads: list[ProtectedHead]
    files: list[Path]


def protect(
    path: Path,
    repository: Path,
    parameters: Parameters,
    asked: ProtectOptions,
    *,
    finish: Callable[[Path], object] = lambda staged: None,
) -> ProtectedFile:
    """Write the models of an ONNX classifier and return what they are.

    Args:
        path: the ONNX file; it and its data files are only read.
        repository: the model repository; created if need be.
        parameters: of the defence; ``scores``, ``multi_label`` and ``class_axis`` are replaced
            by what is found.
        asked: the rest.
        finish: given the folder of the written models before they are put in place, changes what
            a person may edit there.

    Raises:
        InputError: the graph is none that can be protected, or what was asked does not fit it;
            nothing is written then.
    """
    name = asked.name or path.stem
    where = "--name" if asked.name else f"{path}: its name is no model's, so give --name"
    model_repository.refuse_name(name, where=where)
    servable_path.refuse(repository)
    _refuse_protected_in_place(repository, name)  # before --layout fused says to remove it
    if asked.layout == "fused":
        _refuse_for_fused(repository, name, parameters, asked)
    elif asked.layout != "ensemble":
        raise InputError(f"--layout: expected {' or '.join(LAYOUTS)}, got {asked.layout!r}")
    models = model_repository.model_names(name, asked.output)
    models = models[: 1 if asked.layout == "fused" else None]
    anew = {name, f"{name}_{asked.also}"}
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    refuse_existing = partial(_refuse_existing, repository, models, anew, force=asked.force)
    refuse_existing()
    try:
        classifier = understand(path, asked)
        fused.refuse_defended(classifier.model)
        with folder_beside(repository) as staged:
            heads = _write_verified(classifier, classifier.heads, staged, name, parameters)
            finish(staged)
            files = _in_order(staged, (*models[1:], name))
            place(staged, repository, files, look=refuse_existing)  # again: it took a while
    except OSError as error:
        which = error.filename2 or error.filename or repository  # the second is a copy's target
        raise InputError(f"{which}: cannot be written: {error.strerror or error}") from None
    except InputError as error:
        if str(error).startswith(str(path)):
            raise
        raise InputError(f"{path}: {error}") from None
    paths = [repository / file for file in files]
    return ProtectedFile(classifier, name, models, repository, heads, paths)


def _write_verified(
    classifier: Classifier, heads: list[Head], folder: Path, name: str, parameters: Parameters
) -> list[ProtectedHead]:
    """Write the models to a folder and return what was verified of each head."""
    _write(classifier, heads, folder, name, parameters)
    found: list[ProtectedHead] = []
    for index, head in enumerate(heads):
        try:
            found.append(_verified(classifier, head, folder, name, parameters))
        except CutError as error:
            if classifier.asked.scores == "logits":
                raise
            _warn(classifier, head, f"left as probabilities: {error}")
            uncut = replace(head, scores=replace(head.scores, kind="probabilities", cut=None))
            heads = [*heads[:index], uncut, *heads[index + 1 :]]
            return _write_verified(classifier, heads, folder, name, parameters)
    _write_questions(classifier, found, folder, name)
    for done in found:
        refused, tried = done.verified.refused, done.verified.rows + done.verified.refused
        if refused:
            said = f"the defence refuses {refused} of {tried} rows tried: no probabilities"
            _warn(classifier, done, said)
    return found


def _write(
    classifier: Classifier, heads: list[Head], folder: Path, name: str, parameters: Parameters
) -> None:
    signature, asked = classifier.signature, classifier.asked
    model = _scores_only(classifier, heads)
    _write_onnx(classifier, model_repository.onnx_path(folder, name), model)
    defences = [head.defence(parameters) for head in heads]
    texts = model_repository.files(
        name,
        signature,
        *defences,
        self_contained=asked.self_contained,
        max_client_batch=asked.max_client_batch,
    )
    if asked.layout == "fused":
        fused.fuse(model, heads[0].value.name, defences[0])
        _write_onnx(classifier, model_repository.fused_onnx_path(folder, name), model)
        texts |= model_repository.fused_files(name, signature, defences[0])
    for relative, text in texts.items():
        file = folder / relative
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        if file.name == "model.py" and asked.self_contained:
            vendor(file.parent / "postprocess")


def _verified(
    classifier: Classifier, head: Head, folder: Path, name: str, parameters: Parameters
) -> ProtectedHead:
    parameters = head.defence(parameters)
    verified = verify(folder, name, classifier, head, parameters)
    if classifier.asked.layout == "fused":
        verify_fused(folder, name, classifier, head, parameters)
    return ProtectedHead(**vars(head), parameters=parameters, verified=verified)


def _warn(classifier: Classifier, head: Head, text: str) -> None:
    which = f"output {head.value.name}: " if len(classifier.heads) > 1 else ""
    classifier.warnings.append(f"{which}{text}")


def _write_questions(
    classifier: Classifier, heads: list[ProtectedHead], folder: Path, name: str
) -> None:
    """Keep questions that health checks can ask, and warn where they tell them little."""
    runner, kept = OnnxSession(model_repository.onnx_path(folder, name)), []
    for head in heads:
        chosen = question.of_answers(
            runner,
            classifier.source,
            head.evidence,
            head.parameters,
            head.value.name,
            batched=classifier.signature.batched,
        )
        if chosen is None or not chosen.looks.tells_raw:
            said = (
                "on no row tried does a protected answer differ enough from a raw one for health "
                "checks to tell them apart; give confident rows with --sample"
            )
            _warn(classifier, head, said)
        kept += [] if chosen is None else [chosen]
    if kept:
        path_in(folder, name).write_text(text_of(kept), encoding="utf-8")


def _scores_only(classifier: Classifier, heads: list[Head]) -> Any:
    """Return the graph with the scores and the labels as its only outputs, cut if need be."""
    model = type(classifier.model)()
    model.CopyFrom(classifier.model)
    values = [*(head.value for head in heads), *classifier.labels]
    onnx_graph.keep_outputs(model, [value.name for value in values])
    onnx_graph.declare(model.graph.input, classifier.inputs)
    onnx_graph.declare(model.graph.output, values)
    for head in heads:
        if head.scores.cut is not None:
            graph_ending.cut(model, head.value.name)
    return model


def _write_onnx(classifier: Classifier, path: Path, model: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    for location in classifier.external:
        target = path.parent / location
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            # Never a link: whoever exports again writes over the file that was given.
            shutil.copyfile(classifier.path.parent / location, target)


def _refuse_for_fused(
    repository: Path, name: str, parameters: Parameters, asked: ProtectOptions
) -> None:
    fused.refuse_inexpressible(parameters)
    if len(asked.output) > 1:
        raise InputError(
            "--layout fused: expected one --output, for a graph holds one defence; use --layout "
            "ensemble"
        )
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


def _refuse_protected_in_place(repository: Path, name: str) -> None:
    """Refuse to write over a model that was protected in place: its original is kept in it."""
    names = {*model_repository.model_names(name)}
    for public, where in record.holders(repository).items():
        if names & {public, *model_repository.model_names(public), where.parent.name}:
            raise InputError(
                f"{repository / public}: protected in place, and its original is kept with it; "
                f"take that back first: reverse-sigmoid protect {repository / public} --undo"
            )


def _refuse_existing(
    repository: Path, models: tuple[str, ...], anew: set[str], *, force: bool
) -> None:
    if repository.exists() and not repository.is_dir():
        raise InputError(f"--repository {repository}: expected a folder, got a file")
    _refuse_protected_in_place(repository, models[0])
    for model in models:
        folder = repository / model
        if folder.exists() and not force:
            raise InputError(f"{folder} exists; give --force to replace it")
        if folder.exists():
            _refuse_anothers(folder, anew)
        for version in versions.folders(folder):
            if version.name != "1":
                raise InputError(
                    f"{version} exists, and Triton serves the highest version; remove it"
                )


def _refuse_anothers(folder: Path, anew: set[str]) -> None:
    """Refuse to replace a model that a public one has as a step which is not written anew."""
    step = re.compile(
        rf"""^[^#]*\bmodel_name\s*:\s*["']{re.escape(folder.name)}["']""", re.MULTILINE
    )
    for config in folder.parent.glob("*/config.pbtxt"):
        if config.parent.name not in anew and step.search(config.read_text("utf-8", "replace")):
            raise InputError(
                f"{folder}: {config.parent.name} runs it, so --force would break that; choose "
                "another --name, or --repository"
            )


def folder_beside(repository: Path) -> AbstractContextManager[Path]:
    """Return a temporary folder, on the repository's file system if may be, but not in it."""
    parent = repository.resolve().parent
    while not parent.is_dir():
        parent = parent.parent
    writable = os.access(parent, os.W_OK)
    return owned_folder(parent if writable else Path(tempfile.gettempdir()), PREFIX)


def _in_order(staged: Path, models: tuple[str, ...]) -> list[str]:
    """Return the relative paths of the models' files, each config after the rest of its model."""
    order = []
    for model in models:
        files = [file for file in (staged / model).rglob("*") if file.is_file()]
        files.sort(key=lambda file: (file.name == "config.pbtxt", str(file)))
        order += [str(file.relative_to(staged)) for file in files]
    return order


def vendor(folder: Path) -> None:
    """Copy the package ``postprocess``, with its compiled kernel if it has one."""
    folder.mkdir(parents=True, exist_ok=True)
    package = Path(postprocess.__file__).parent
    for file in (*package.glob("*.py"), *package.glob("_kernel*.so")):
        shutil.copyfile(file, folder / file.name)
