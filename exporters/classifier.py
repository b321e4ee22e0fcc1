"""An ONNX classifier, understood: read from its graph where that says it, found by running else."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporters import evidence as evidence_of
from exporters import external_data, onnx_graph, onnx_run, onnx_signature, score_output
from exporters.evidence import Evidence
from exporters.onnx_graph import Value
from exporters.onnx_run import Runner, Source
from exporters.onnx_signature import MAX_BATCH_SIZE, Signature
from exporters.score_output import Scores
from postprocess.errors import InputError

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
    max_client_batch: int | None = None  #: most rows of a client's request
    sample: Path | None = None  #: an .npz file of real rows
    self_contained: bool = False
    layout: str = "ensemble"
    force: bool = False


class Classifier:
    """An ONNX file, understood: what it takes and gives, and what its scores are."""

    signature: Signature
    value: Value  #: the output that holds the scores, its K known
    flat: bool  #: the scores have no class axis, only the batch
    scores: Scores
    source: Source  #: of input that the graph runs on
    evidence: Evidence  #: what it gave on that input
    dropped: list[str]  #: outputs that the protected models do not have
    warnings: list[str]

    def __init__(self, path: Path, asked: Asked) -> None:
        """Read the graph, run it, and conclude.

        Raises:
            InputError: no graph that can be protected, or what was asked does not fit it.
        """
        model = onnx_graph.load(path)
        self.path, self.model, self.asked = path, model, asked
        self.warnings = _version_warnings(model)
        self.external = external_data.files(model, path)
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
        return onnx_run.random_source(
            self.runner, self.inputs, outputs, self.batched, onnx_graph.strings(self.model)
        )

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
        try:
            self.scores, warnings = score_output.understand(
                self.evidence.all_scores(),
                self.end,
                rank=len(self.value.shape or ()),
                asked=asked.scores,
                multi_label=asked.multi_label,
            )
        except InputError as error:
            raise InputError(f"output {self.value.name}: {error}") from None
        self.warnings += warnings
        labels = [value for value in self.candidates if self._follows(value)]
        names = [value.name for value in labels]
        self.dropped = [name for name in self.others if name not in names]
        maybe = [value.name for value in self.candidates]
        where = "random input; real rows with --sample may show that it does"
        if asked.sample is not None:
            where = "the rows of --sample"
        self.warnings += [
            f"output {name} is dropped: it was not seen to follow from the top class on {where}"
            if name in maybe
            else f"output {name} is dropped: what it says beside the scores can leak the model"
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
