"""A model of a repository by its config.pbtxt: what it is, and why it cannot be protected."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deploy.repository import model_config, protected
from exporters.graph.onnx_graph import DATA_TYPES, FLOATS, Value
from exporters.graph.onnx_signature import OnnxTensor
from exporters.repository import model_repository, record, versions
from postprocess.errors import InputError

#: Backends that the embedded Triton has.
EMBEDDED = ("onnxruntime", "python")


@dataclass(frozen=True)
class ExistingModel:
    """A model as it stands in its repository, and those behind it."""

    folder: Path
    original: bytes | None  #: its config.pbtxt, None where it has none
    text: str  #: of that, with what Triton completes
    config: Any
    others: dict[str, Any]  #: the configs of all models of the repository that can be read

    @property
    def name(self) -> str:
        """The public name."""
        return self.folder.name

    @property
    def repository(self) -> Path:
        """The folder of models."""
        return self.folder.parent

    @property
    def is_ensemble(self) -> bool:
        """Whether it is made of steps."""
        return bool(self.config.ensemble_scheduling.step)

    @property
    def batched(self) -> bool:
        """Whether the first axis of every tensor is the batch."""
        return bool(self.config.max_batch_size > 0)

    def closure(self) -> list[str]:
        """Return it and every model that it runs, through ensembles of ensembles."""
        names = [self.name]
        for name in names:  # grows meanwhile
            for step in model_config.step_names(self.others[name]):
                if step not in names and step in self.others:
                    names.append(step)
        return names

    def backends(self) -> list[str]:
        """Return the backends of all that it runs."""
        return [
            model_config.backend_of(self.others[name])
            for name in self.closure()
            if not self.others[name].ensemble_scheduling.step
        ]

    def tensor(self, declared: Any) -> OnnxTensor:
        """Return an input or output as its config declares it."""
        kind = model_config.data_type_name(declared)
        return OnnxTensor(declared.name, kind, tuple(declared.dims))

    def value(self, declared: Any) -> Value:
        """Return an input or output as what can be run on; free sizes are ""."""
        kind = model_config.data_type_name(declared)
        dims = tuple("" if size < 0 else size for size in declared.dims)
        return Value(declared.name, kind, ("", *dims) if self.batched else dims, kind)


def read(
    folder: Path,
    complete: Callable[[Path, str], str],
    *,
    outputs: Sequence[str] = (),
    in_place: bool = True,
) -> ExistingModel:
    """Return the model of a folder REPOSITORY/NAME.

    Args:
        folder: of the model.
        complete: makes of it and the text of its config.pbtxt a text that Triton has completed.
        outputs: of which each is to get a defence; none: the one that will be found.
        in_place: refuse it too where the protected models have no place beside it.

    Raises:
        InputError: there is none, or none that can be protected.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model: expected REPOSITORY/NAME, or an .onnx file")
    path = folder / "config.pbtxt"
    if not path.is_file() and not versions.folders(folder):
        raise InputError(
            f"{folder}: no config.pbtxt and no version, so it is no model of a Triton repository; "
            "give REPOSITORY/NAME"
        )
    model_repository.refuse_name(folder.name, where=str(folder))
    others = {folder.name: _config(folder)}
    for one in sorted(folder.parent.iterdir()):
        if one.name != folder.name and (versions.folders(one) or (one / path.name).is_file()):
            with suppress(InputError):  # Triton does not serve it either
                others[one.name] = _config(one)
    original = record.config_of(folder)
    text = (original or b"").decode()
    model = ExistingModel(folder, original, text, model_config.parse(text, path), others)
    _refuse_protected(model)
    if in_place:
        _refuse_place(model, outputs)
    _refuse_kind(model)
    _refuse_own_path(model)
    _refuse_links(model, in_place=in_place)
    _refuse_versions(model)
    if not model.is_ensemble and not (model.config.input and model.config.output):
        text = complete(folder, text)
        config = model_config.parse(text, path)
        others[folder.name].CopyFrom(config)
        others[folder.name].name = folder.name
        model = replace(model, text=text, config=config)
    _refuse_tensors(model)
    return model


#: How a backend is known by the file of a version, where no config.pbtxt names it.
_FILES = {
    "model.onnx": "onnxruntime",
    "model.py": "python",
    "model.plan": "tensorrt",
    "model.pt": "pytorch",
    "model.savedmodel": "tensorflow",
    "model.xml": "openvino",
}


def _config(folder: Path) -> Any:
    """Return a model's config with its name, and its backend as Triton would find it."""
    path = folder / "config.pbtxt"
    config = model_config.read(path) if path.is_file() else model_config.parse("", path)
    config.name = config.name or folder.name
    if not (config.backend or config.platform or config.ensemble_scheduling.step):
        there = {file.name for one in versions.folders(folder) for file in one.iterdir()}
        config.backend = next((_FILES[one] for one in sorted(there & _FILES.keys())), "")
    return config


def _refuse_protected(model: ExistingModel) -> None:
    name, folder = model.name, model.folder
    if model_config.may_be_defence(model.config):
        raise InputError(f"{folder}: it is a defence itself; give the public model")
    found = protected.among(model.others)
    for one in found:
        if name == one.name:
            raise InputError(
                f"{folder}: protected already; retune changes its parameters, and --undo takes "
                "back what was protected in place"
            )
        if name in one.models:
            raise InputError(f"{folder}: it stands behind {one.name}, which is protected already")
    for step in model_config.step_names(model.config):
        if model_config.may_be_defence(model.others.get(step, model.config)):
            raise InputError(
                f"{folder}: its step {step} is a defence whose parameters are refused; "
                "check says why, and retune mends them"
            )


def _refuse_place(model: ExistingModel, outputs: Sequence[str]) -> None:
    if model.folder.is_symlink():
        raise InputError(f"{model.folder}: a link, which cannot be moved; give --repository OUT")
    names = model_repository.model_names(model.name, outputs)
    if record.holder(model.folder) is not None:
        raise InputError(
            f"{model.folder}: an earlier protect was not finished: give --undo first, which takes "
            "away what it left"
        )
    for name in names[2:] if model.is_ensemble else names[1:]:
        if (model.repository / name).exists():
            raise InputError(
                f"{model.repository / name} exists, and would have to be written; remove or rename "
                "it"
            )
    for other, config in model.others.items():
        if model.name in model_config.step_names(config):
            raise InputError(
                f"{model.folder}: the ensemble {other} has it as a step, and would get protected "
                f"scores in its middle; protect {model.repository / other}"
            )


def _refuse_kind(model: ExistingModel) -> None:
    config, folder = model.config, model.folder
    if config.name not in ("", model.name):
        raise InputError(
            f"{folder / 'config.pbtxt'}: name: expected the folder's, {model.name}, got "
            f"{config.name}"
        )
    for name in model.closure():
        one = model.others[name]
        place = folder if name == model.name else f"{folder}: its step {name}"
        if one.model_transaction_policy.decoupled:
            raise InputError(
                f"{place}: decoupled: it answers a request as often as it likes, and a defence "
                "expects one answer; serve its scores by a model that is not"
            )
        if one.HasField("sequence_batching"):
            raise InputError(
                f"{place}: sequence_batching: what it answers follows from the requests before, "
                "and an ensemble cannot pass a sequence on; protect a model without it"
            )
    for step in model_config.step_names(config):
        if step not in model.others:
            raise InputError(
                f"{folder}: its step {step} is no model of {model.repository}; put it there, or "
                "name one that is"
            )


def _refuse_own_path(model: ExistingModel) -> None:
    """Refuse parameters that name a file in the folder that gets another name."""
    for key, value in model_config.strings(model.config).items():
        if f"/{model.name}/" in f"{value}/":
            raise InputError(
                f"{model.folder / 'config.pbtxt'}: parameter {key}: {value}: names the model's own "
                "folder, which gets another name; write $$TRITON_MODEL_DIRECTORY where the backend "
                "knows it, or keep the file elsewhere"
            )


def _refuse_links(model: ExistingModel, *, in_place: bool) -> None:
    """Refuse links that lead elsewhere, or nowhere, from where the model is run or moved to."""
    for name in model.closure():
        folder = model.repository / name
        for file in record.contents(folder)[0]:
            link = folder / file
            if not link.is_symlink():
                continue
            to, inside = link.readlink(), folder.resolve() in link.resolve().parents
            if not to.is_absolute() and not inside:
                raise InputError(
                    f"{link}: a link to {to}, which leads elsewhere from where the model is tried; "
                    "make it an absolute one"
                )
            if in_place and name == model.name and (to.is_absolute() and inside):
                raise InputError(
                    f"{link}: a link to {to}, in the model's own folder, which gets another name; "
                    "make it a relative one"
                )
    if in_place and (model.folder / "config.pbtxt").is_symlink():
        raise InputError(
            f"{model.folder / 'config.pbtxt'}: a link, and a file would take its place; put the "
            "file itself there, or give --repository OUT"
        )


def _refuse_tensors(model: ExistingModel) -> None:
    config, path = model.config, model.folder / "config.pbtxt"
    if not config.input or not config.output:
        what = "output" if config.input else "input"
        raise InputError(f"{path}: declares no {what}; write there what the model has")
    for one in config.input:
        if one.optional:
            raise InputError(
                f"{path}: input {one.name}: optional, and a step of an ensemble gets all its "
                "inputs; take optional out if every client sends it"
            )
    kinds = {one.name: model_config.data_type_name(one) for one in config.output}
    if not any(kind in FLOATS for kind in kinds.values()):
        there = ", ".join(f"{name} {kind.removeprefix('TYPE_')}" for name, kind in kinds.items())
        raise InputError(
            f"{path}: no output of floats (FP16, FP32, FP64) that could hold scores: expected one, "
            f"got {there}; have the model give its scores"
        )
    for one in config.output:
        if one.label_filename and not (model.folder / one.label_filename).is_file():
            raise InputError(
                f"{path}: output {one.name}: label_filename: expected a file in the model's "
                f"folder, got {one.label_filename}, which is not there; put it there, or take "
                "label_filename out"
            )
    for one in (*config.input, *config.output):
        if model_config.data_type_name(one) not in DATA_TYPES.values():
            kind = model_config.data_type_name(one)
            raise InputError(
                f"{path}: tensor {one.name}: expected a type that NumPy has, got {kind}; have the "
                "model take and give another, such as TYPE_FP32"
            )


def _refuse_versions(model: ExistingModel) -> None:
    misread = versions.misread(model.folder, model.config)
    if misread is not None:
        raise InputError(f"{misread}: {versions.MISREAD}")
    found = versions.served(model.folder, model.config)
    if not found:
        there = ", ".join(one.name for one in versions.folders(model.folder)) or "none"
        raise InputError(
            f"{model.folder}: no version folder that Triton would serve: expected one such as 1, "
            f"got {there}; add one, or let version_policy name one that is there"
        )
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        newest = found[-1].name
        raise InputError(
            f"{model.folder}: versions {names} are served at a time, and an ensemble answers each "
            "of its own by the newest; write in its config.pbtxt version_policy "
            f"{{ specific {{ versions: {newest} }} }}, and serve older ones as models of their own"
        )
