"""An ONNX file in, three models out: read, cut, write, verify, and only then put in place."""

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import postprocess
from exporters import evidence as evidence_of
from exporters import model_repository, onnx_graph, onnx_run, onnx_signature, score_output
from exporters.evidence import Evidence
from exporters.onnx_graph import Value
from exporters.onnx_run import Runner, Source
from exporters.onnx_signature import MAX_BATCH_SIZE, Signature
from exporters.placing import place
from exporters.score_output import Scores
from exporters.verify import CutError, Verified, verify
from postprocess.errors import InputError
from postprocess.parameters import Parameters

#: What the ONNX Runtime 1.19 of NVIDIA's Triton 24.10 image can load.
NVIDIA_IR, NVIDIA_OPSET = 10, 21


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a person says about their model; by default everything is found out."""

    name: str = ""  #: the public model name; "" is the file's stem
    scores: str = ""  #: "logits" or "probabilities"
    multi_label: bool | None = None
    output: str = ""  #: the output that holds the scores
    max_batch_size: int | None = None  #: 0: no batching
    sample: Path | None = None  #: an .npz file of real rows
    self_contained: bool = False
    layout: str = "ensemble"
    force: bool = False


@dataclass(frozen=True)
class Protected:
    """What was found in the graph and written around it."""

    onnx: Path
    repository: Path
    name: str
    signature: Signature
    dropped: list[str]  #: outputs that the models do not have any more
    scores: Scores
    parameters: Parameters
    verified: Verified
    files: list[Path]
    warnings: list[str]


def protect(path: Path, repository: Path, parameters: Parameters, asked: Asked) -> Protected:
    """Write the three models of an ONNX classifier and return what they are.

    Args:
        path: the ONNX file; it and its data files are only read.
        repository: the model repository; created if need be.
        parameters: of the defence; ``scores`` and ``multi_label`` are replaced by what is found.
        asked: the rest.

    Raises:
        InputError: the graph is none that can be protected, or what was asked does not fit it;
            nothing is written then.
    """
    if asked.layout != "ensemble":
        raise InputError(f"--layout: expected ensemble, got {asked.layout!r}")
    name = asked.name or path.stem
    model_repository.refuse_name(name)
    _refuse_existing(repository, name, force=asked.force)
    model = onnx_graph.load(path)
    try:
        work = _Work(path, model, asked)
        with _folder_beside(repository) as folder:
            staged = Path(folder)
            scores, parameters, verified = work.write_verified(staged, name, parameters)
            files = _in_order(staged, name)
            place(staged, repository, files)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{error.filename or repository}: cannot be written: {reason}") from None
    except InputError as error:
        if str(error).startswith(str(path)):
            raise
        raise InputError(f"{path}: {error}") from None
    return Protected(
        path, repository, name, work.signature, work.dropped, scores, parameters, verified,
        [repository / file for file in files], work.warnings,
    )  # fmt: skip


class _Work:
    """One graph on its way; each method needs what the ones above it found."""

    def __init__(self, path: Path, model: Any, asked: Asked) -> None:
        self.path, self.model, self.asked = path, model, asked
        self.warnings = _version_warnings(model)
        self.external = onnx_graph.external_files(model, path)
        self.inputs = onnx_graph.inputs(model)
        for value in self.inputs:
            _refuse_input(value)
        self.runner = Runner(path)
        self._find_scores()
        self._gather()

    def _find_scores(self) -> None:
        """Find the scores, whether the batch is free, and input that the graph runs on."""
        values = onnx_graph.outputs(self.model)
        names = [value.name for value in values if value.data_type]
        wanted = self.asked.max_batch_size
        self.batched = wanted != 0 and all(map(onnx_signature.has_free_batch, self.inputs))
        if not names:
            score_output.find(self.model, values, {}, self.asked.output)
        self.source = self._source(names)
        results = self._run(names)
        found = score_output.find(self.model, values, results, self.asked.output)
        first = (found.shape or ("",))[0]
        if self.batched and not (
            isinstance(first, str)
            and evidence_of.follows_batch(self.runner, self.source, found.name)
        ):
            self.batched = False
            self.source = self._source(names)
            results = self._run(names)
        if wanted and not self.batched:
            raise InputError(
                f"--max-batch-size {wanted}: the graph has no free batch dimension in every input "
                f"and in {found.name}"
            )
        shape = results[found.name].shape
        self.flat = self.batched and len(shape) == 1
        self.value = self._shaped(found, shape)
        self.end = onnx_graph.ending(self.model, found.name, rank=len(shape))
        self.candidates = [
            self._declared(value, results[value.name].shape)
            for value in values
            if value.data_type
            and value.data_type not in onnx_graph.FLOATS
            and self._label_like(results[value.name].shape, shape)
        ]
        self.others = [value.name for value in values if value.name != found.name]

    def _source(self, outputs: list[str]) -> Source:
        if self.asked.sample is not None:
            return onnx_run.read_sample(self.asked.sample, self.inputs, self.batched)
        return onnx_run.random_source(self.runner, self.inputs, outputs, self.batched)

    def _run(self, outputs: list[str]) -> dict[str, Any]:
        try:
            return self.runner(next(self.source.feeds(2)), outputs)
        except Exception as error:
            said = f"the graph fails: {onnx_run.one_line(error)}"
            raise InputError(f"{said}; {evidence_of.hint(self.source)}") from None

    def _label_like(self, label: tuple[int, ...], scores: tuple[int, ...]) -> bool:
        rows = scores if self.flat else scores[:-1]
        return label != () and label in (rows, (*rows, 1))

    @staticmethod
    def _declared(value: Value, shape: tuple[int, ...]) -> Value:
        """Return an output with a shape, symbolic where the file declares none."""
        if value.shape is not None and len(value.shape) == len(shape):
            return value
        return replace(value, shape=("",) * len(shape))

    def _shaped(self, value: Value, shape: tuple[int, ...]) -> Value:
        """Return the scores with their number of classes, found by running if need be."""
        value = self._declared(value, shape)
        declared = value.shape or ()
        if self.flat or isinstance(declared[-1], int):
            return value
        return replace(value, shape=(*declared[:-1], self._classes(value.name, shape[-1])))

    def _classes(self, name: str, classes: int) -> int | str:
        """Return K, or "" if it changes with the size of another symbolic dimension."""
        if self.source.sample is None:
            for size in onnx_run.SIZES:
                try:
                    feed = next(replace(self.source, size=size).feeds(2))
                    other = self.runner(feed, [name])[name].shape[-1]
                except Exception:  # noqa: S112  a size that the graph does not take
                    continue
                if other != classes:
                    return ""
        return classes

    def _gather(self) -> None:
        """Run the graph; conclude what its scores and its other outputs are."""
        if self.batched:
            evidence_of.refuse_dependent_rows(self.runner, self.source, self.value, flat=self.flat)
        self.evidence: Evidence = evidence_of.gather(
            self.runner, self.source, self.value.name, flat=self.flat,
            labels=[value.name for value in self.candidates], rows=self._max_batch_size() or 2,
        )  # fmt: skip
        asked = self.asked
        self.scores, warnings = score_output.understand(
            self.evidence.all_scores(), self.end, self.value.data_type,
            asked=asked.scores, multi_label=asked.multi_label,
        )  # fmt: skip
        self.warnings += warnings
        labels = [value for value in self.candidates if self._follows(value)]
        names = [value.name for value in labels]
        self.dropped = [name for name in self.others if name not in names]
        maybe = [value.name for value in self.candidates]
        self.warnings += [
            f"output {name} is dropped: it was not seen to follow from the top class; "
            "real rows with --sample may show that it does"
            if name in maybe and self.asked.sample is None
            else f"output {name} is dropped: what it says beside the top class can leak the model"
            for name in self.dropped
        ]
        self.signature = Signature(
            tuple(onnx_signature.tensor_of(value, batched=self.batched) for value in self.inputs),
            onnx_signature.tensor_of(self.value, batched=self.batched),
            tuple(onnx_signature.tensor_of(value, batched=self.batched) for value in labels),
            self._max_batch_size(),
        )

    def _max_batch_size(self) -> int:
        return (self.asked.max_batch_size or MAX_BATCH_SIZE) if self.batched else 0

    def _follows(self, value: Value) -> bool:
        free = isinstance((value.shape or (0,))[0], str)
        if self.scores.multi_label or (self.batched and not free):
            return False
        rows = self.evidence.all_scores()
        kind = "probabilities" if self.end is not None else self.scores.kind
        answer, clear = score_output.top(
            rows, self.value.data_type, kind=kind, sides=rows.shape[1] == 1
        )
        label = self.evidence.all_labels(value.name)
        return score_output.follows(label, answer.reshape(-1), clear.reshape(-1))

    def write_verified(
        self, folder: Path, name: str, parameters: Parameters
    ) -> tuple[Scores, Parameters, Verified]:
        """Write the three models to a folder and return what was verified of them."""
        try:
            return self._write(folder, name, parameters, self.scores)
        except CutError as error:
            if self.asked.scores == "logits":
                raise
            self.warnings.append(f"left as probabilities: {error}")
        uncut = replace(self.scores, kind="probabilities", cut=None)
        return self._write(folder, name, parameters, uncut)

    def _write(
        self, folder: Path, name: str, parameters: Parameters, scores: Scores
    ) -> tuple[Scores, Parameters, Verified]:
        parameters = replace(parameters, scores=scores.kind, multi_label=scores.multi_label)
        onnx = model_repository.onnx_path(folder, name)
        onnx.parent.mkdir(parents=True, exist_ok=True)
        self._write_onnx(onnx, scores)
        texts = model_repository.files(
            name, self.signature, parameters, self_contained=self.asked.self_contained
        )
        for relative, text in texts.items():
            file = folder / relative
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        if self.asked.self_contained:
            _vendor(folder / model_repository.defence_name(name) / "1" / "postprocess")
        verified = verify(
            folder, name, self.value.name, self.value.data_type, scores, self.evidence, self.source
        )
        return scores, parameters, verified

    def _write_onnx(self, path: Path, scores: Scores) -> None:
        model = type(self.model)()
        model.CopyFrom(self.model)
        onnx_graph.keep_outputs(
            model, [self.value.name, *(label.name for label in self.signature.labels)]
        )
        if scores.cut is not None:
            onnx_graph.cut(model, self.value.name, scores.cut)
        path.write_bytes(model.SerializeToString())
        for location in self.external:
            target = path.parent / location
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copyfile(self.path.parent / location, target)


def _version_warnings(model: Any) -> list[str]:
    opset = onnx_graph.opset(model)
    if model.ir_version <= NVIDIA_IR and opset <= NVIDIA_OPSET:
        return []
    return [
        f"IR version {model.ir_version} and opset {opset}: the ONNX Runtime 1.19 of NVIDIA's "
        f"Triton 24.10 image loads at most {NVIDIA_IR} and {NVIDIA_OPSET}"
    ]


def _refuse_input(value: Value) -> None:
    where = f"input {value.name}"
    if not value.data_type:
        raise InputError(f"{where}: expected a tensor of a type that Triton has, got {value.kind}")
    if value.shape is None:
        raise InputError(f"{where}: expected a known number of dimensions, the graph declares none")
    if value.shape == ():
        raise InputError(f"{where}: a scalar, which Triton cannot serve; give it a dimension")


def _refuse_existing(repository: Path, name: str, *, force: bool) -> None:
    if repository.exists() and not repository.is_dir():
        raise InputError(f"--repository {repository}: expected a folder")
    for model in model_repository.model_names(name):
        folder = repository / model
        if folder.exists() and not force:
            raise InputError(f"{folder} exists; give --force to replace it")
        for version in folder.glob("*/"):
            if version.name.isdecimal() and version.name != "1":
                raise InputError(
                    f"{version} exists, and Triton serves the highest version; remove it"
                )


def _folder_beside(repository: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder, on the repository's file system but not in it."""
    parent = repository.absolute().parent
    while not parent.is_dir():
        parent = parent.parent
    return tempfile.TemporaryDirectory(dir=parent, prefix=".reverse-sigmoid-")


def _in_order(staged: Path, name: str) -> list[str]:
    """Return the relative paths of all files: classifier first, ensemble last, configs last."""
    public, classifier, defence = model_repository.model_names(name)
    order = []
    for model in (classifier, defence, public):
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
