"""The protected models, written beside the repository: all that stands there before anything moves.

Files of the model are linked; what is written is small.
"""

import os
import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deploy.existing import config_text
from deploy.existing.asking import Understood
from deploy.existing.reading import ExistingModel
from deploy.repository import model_config
from exporters import protect
from exporters.files.linking import link_or_copy
from exporters.graph.onnx_signature import OnnxTensor, Signature
from exporters.reading.classifier import ProtectOptions
from exporters.repository import config_pbtxt, model_repository, record, versions
from exporters.repository.record import Record
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.question import FILE

_CLASSIFIER = """\
# The victim: the classifier itself. Whoever can reach this name gets its raw scores, so let
# clients reach the ensemble "{name}" only. All below is as it was, but for the name.
"""
#: How a file comes to another place: by a link, or where that may be by a copy.
Take = Callable[[Path, Path], object]


@dataclass(frozen=True)
class Staged:
    """The models of a protected one, in a folder of their own."""

    folder: Path
    models: tuple[str, ...]  #: the public one first
    signature: Signature


def link(file: Path, target: Path) -> None:
    """Make a file stand at another place too, and refuse where it cannot without a copy."""
    try:
        os.link(file, target, follow_symlinks=False)
    except OSError as error:
        raise InputError(
            f"{file}: no second name for it can be made ({error.strerror}), so nothing can be "
            "protected in place without copying it; give --repository OUT"
        ) from None


def copy(file: Path, target: Path) -> None:
    """Make what a file holds stand at another place too, or a folder that it links to."""
    (shutil.copytree if file.is_dir() else shutil.copy2)(file, target)


def copy_mode(source: Path, target: Path) -> None:
    """Give a new folder the permissions of another, its owner's kept."""
    target.chmod(source.stat().st_mode | stat.S_IRWXU)


def take_tree(source: Path, target: Path, take: Take) -> None:
    """Make a model's folder stand at another place too."""
    files, folders = record.contents(source)
    target.mkdir(parents=True)
    for relative in folders:
        (target / relative).mkdir()
    for relative in files:
        take(source / relative, target / relative)
    for relative in (*folders, "."):
        copy_mode(source / relative, target / relative)


def take_for_here(source: Path, target: Path) -> None:
    """Make a model stand where this machine runs it, which may have no GPU.

    In one instance: one caller asks, and each takes its memory and its time to load. What is small
    is copied, as a server that polls loads a model again for a link to one of its files.
    """
    take_tree(source, target, link_or_copy)
    if not (target / "config.pbtxt").is_file():  # Triton completes it
        return
    config = model_config.read(target / "config.pbtxt")
    groups = config.instance_group
    if config.HasField("ensemble_scheduling"):
        return
    if groups and all(one.kind == one.KIND_MODEL for one in groups):
        return
    config.ClearField("instance_group")
    config.instance_group.add(count=1)
    _write(target / "config.pbtxt", str(config))


def write(
    model: ExistingModel,
    found: Understood,
    parameters: Sequence[Parameters],
    asked: ProtectOptions,
    folder: Path,
    *,
    take: Take = link,
) -> Staged:
    """Write the protected models of an existing one to a folder and return what they are.

    Raises:
        InputError: its config.pbtxt is written in a form that cannot be edited, or a file cannot
            be linked.
    """
    signature = _signature(model, found)
    texts = model_repository.files(
        model.name,
        signature,
        *parameters,
        self_contained=asked.self_contained,
        max_client_batch=asked.max_client_batch,
    )
    name, classifier, *defences = model_repository.model_names(model.name, found.outputs)
    for relative, text in texts.items():
        if relative.partition("/")[0] in defences:
            _write(folder / relative, text)
    for defence in defences if asked.self_contained else ():
        protect.vendor(folder / defence / "1" / "postprocess")
    if model.is_ensemble:
        take_tree(model.folder, folder / name, take)
        _write(folder / name / "config.pbtxt", _extended(model, signature, defences))
        return Staged(folder, (name, *defences), signature)
    take_tree(model.folder, folder / classifier, take)
    _write(folder / classifier / "config.pbtxt", _behind(model, found, classifier))
    _write(folder / name / "config.pbtxt", _public(model, texts[f"{name}/config.pbtxt"]))
    for version in versions.folders(model.folder):
        _write(folder / name / version.name / ".gitkeep", "")
    for output in signature.scores:
        if output.label_filename:
            target = folder / name / output.label_filename
            target.parent.mkdir(exist_ok=True, parents=True)
            take(model.folder / output.label_filename, target)
    return Staged(folder, (name, classifier, *defences), signature)


def write_record(model: ExistingModel, staged: Staged) -> Record:
    """Keep with the staged defence what undoing needs, and return it."""
    files, folders = record.contents(model.folder)
    holder = staged.models[0] if model.is_ensemble else staged.models[1]
    ours = [
        file for file in ("config.pbtxt", FILE) if (staged.folder / holder / file).is_file()
        and (file == "config.pbtxt" or file not in files)
    ]  # fmt: skip
    written = {file: record.digest(staged.folder / holder / file) for file in ours}
    defences = [*staged.models[1 if model.is_ensemble else 2 :]]
    where = staged.folder / defences[-1] / record.HOLDER
    stamps = {file: record.stamp(model.folder / file) for file in files}
    kept = Record(model.original, holder, files, folders, written, model.name, defences, stamps)
    record.write(where, kept)
    if model.original is not None:
        link(model.folder / "config.pbtxt", where / "config.pbtxt")
    return kept


def watch(model: ExistingModel, staged: Staged, kept: Record) -> Callable[[Path], None]:
    """Return what refuses to move a model to whose folder something came, or went, meanwhile.

    It is called with the folder that the model stands in then, and raises InputError where what
    is there is not what the staged models are linked to.
    """
    behind = staged.folder / kept.holder
    inodes = {one: (behind / one).lstat().st_ino for one in kept.files if one != "config.pbtxt"}

    def refuse_changed(folder: Path) -> None:
        same = record.contents(folder) == (kept.files, kept.folders) and all(
            (folder / file).lstat().st_ino == inode for file, inode in inodes.items()
        )
        if not same or record.config_of(folder) != model.original:
            raise InputError(f"{model.folder}: changed while it was being protected; try again")

    return refuse_changed


def _write(path: Path, text: str) -> None:
    """Write a file anew, never into one that is linked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")


def _signature(model: ExistingModel, found: Understood) -> Signature:
    outputs = {one.name: one for one in model.config.output}

    def scores(name: str) -> OnnxTensor:
        labels_file = "" if model.is_ensemble else outputs[name].label_filename
        return replace(model.tensor(outputs[name]), label_filename=labels_file)

    return Signature(
        tuple(map(model.tensor, model.config.input)),
        tuple(map(scores, found.outputs)),
        tuple(model.tensor(outputs[name]) for name in found.labels),
        model.config.max_batch_size,
    )


def _public(model: ExistingModel, text: str) -> str:
    """Return the ensemble's config with the version policy of the original."""
    from google.protobuf import text_format

    if not model.config.HasField("version_policy"):
        return text
    policy = text_format.MessageToString(model.config.version_policy, as_one_line=True)
    return f"{text}version_policy {{ {policy.strip()} }}\n"


def _behind(model: ExistingModel, found: Understood, name: str) -> str:
    """Return the config of the model under its new name."""

    def edit(text: str) -> str:
        text = config_text.renamed(text, name)
        for one in found.outputs:
            text = config_text.without_labels_file(text, one)
        return text

    wanted = type(model.config)()
    wanted.CopyFrom(model.config)
    wanted.name = name if wanted.name else ""
    for output in wanted.output:
        if output.name in found.outputs:
            output.ClearField("label_filename")
    return _CLASSIFIER.format(name=model.name) + _edited(model, edit, wanted)


def _extended(model: ExistingModel, signature: Signature, defences: Sequence[str]) -> str:
    """Return the config of an ensemble with the defences as its last steps."""
    tensors = {one.name for one in (*signature.scores, *model.config.input)}
    for step in model.config.ensemble_scheduling.step:
        tensors |= {*step.input_map.values(), *step.output_map.values()}
    steps: list[tuple[str, str, str]] = []
    wanted = type(model.config)()
    wanted.CopyFrom(model.config)
    heads = zip(defences, signature.scores, config_pbtxt.inner_scores(signature), strict=True)
    for defence, scores, taken in heads:
        inner = taken.name
        while inner in tensors:
            inner += "_"
        tensors.add(inner)
        step = config_pbtxt.step(
            defence,
            config_pbtxt.mapped("input", inner, taken.name),
            config_pbtxt.mapped("output", scores.name, scores.name),
        )
        steps.append((scores.name, inner, step.strip()))
        for one in wanted.ensemble_scheduling.step:
            for key, tensor in one.output_map.items():
                if tensor == scores.name:
                    one.output_map[key] = inner
        last = wanted.ensemble_scheduling.step.add(model_name=defence, model_version=-1)
        last.input_map[taken.name], last.output_map[scores.name] = inner, scores.name

    def edit(text: str) -> str:
        for one in steps:
            text = config_text.with_step(text, *one)
        return text

    return _edited(model, edit, wanted)


def _edited(model: ExistingModel, edit: Callable[[str], str], wanted: Any) -> str:
    """Return the model's text, edited, once it says what it should and nothing else."""
    path = model.folder / "config.pbtxt"
    with suppress(InputError, ValueError, IndexError):  # what no edit of it finds
        text = edit(model.text)
        if model_config.parse(text, path) == wanted:
            return text
    raise InputError(
        f"{path}: written in a form that cannot be edited in place; {config_text.ONE_A_LINE}"
    )
