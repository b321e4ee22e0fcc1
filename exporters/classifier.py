"""An ONNX classifier, understood: read from its graph where that says it, found by running else."""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporters import (
    batch,
    class_axis,
    external_data,
    graph_ending,
    onnx_graph,
    onnx_run,
    onnx_signature,
    score_kind,
    score_output,
    triton_releases,
    zipmap,
)
from exporters import evidence as evidence_of
from exporters.class_axis import LAST, Signs
from exporters.evidence import Evidence
from exporters.onnx_graph import Value
from exporters.onnx_run import OnnxSession, Source
from exporters.onnx_signature import MAX_BATCH_SIZE, Signature
from exporters.score_kind import ScoreKind
from postprocess.errors import InputError

#: Calls whose scores are looked at for the axis of the classes.
AXIS_CALLS = 4


@dataclass(frozen=True, kw_only=True)
class ProtectOptions:
    """What a person says about their model; by default everything is found out."""

    name: str = ""  #: the public model name; "" is the file's stem
    scores: str = ""  #: "logits" or "probabilities"
    multi_label: bool | None = None
    class_axis: int | None = None  #: of the scores, the batch counted
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
    labels: list[Value]  #: outputs that follow from the top class
    axis: int | None  #: of the classes, -1 or counted from 0; None: the scores have only a batch
    scores: ScoreKind
    source: Source  #: of input that the graph runs on
    evidence: Evidence  #: what it gave on that input
    dropped: list[str]  #: outputs that the protected models do not have
    warnings: list[str]

    def __init__(self, path: Path, asked: ProtectOptions) -> None:
        """Read the graph, run it, and conclude.

        Raises:
            InputError: no graph that can be protected, or what was asked does not fit it.
        """
        model = onnx_graph.load(path)
        self.path, self.model, self.asked = path, model, asked
        self.warnings = triton_releases.warnings(model)
        self.external = external_data.files(model, path)
        self.inputs = onnx_graph.inputs(model)
        for value in self.inputs:
            _refuse_input(value)
        self.zipmaps = zipmap.take_off(model)
        self.runner = OnnxSession(path, model=model if self.zipmaps else None)
        self._find_scores()
        self._gather()
        if self.zipmaps:
            self._verify_zipmap()

    def _find_scores(self) -> None:
        """Find the scores, whether the batch is free, and input that the graph runs on."""
        values = onnx_graph.outputs(self.model)
        names = [value.name for value in values if value.data_type]
        wanted = self.asked.max_batch_size
        self.free = free = all(map(onnx_signature.has_free_batch, self.inputs))
        self.batched = wanted != 0 and free
        if not names:
            score_output.find(self.model, values, {}, self.asked.output)
        self.source = self._source(names)
        if free:
            self._settle_batch(names)
        results = self._run(names)
        found = score_output.find(self.model, values, results, self.asked.output)
        if self.batched and not evidence_of.follows_batch(self.runner, self.source, found.name):
            self.batched = False
            self.source = self._source(names)
            results = self._run(names)
        if wanted and not self.batched:
            raise InputError(
                f"--max-batch-size {wanted}: the graph has no free batch dimension in every input "
                f"and in {found.name}; leave it out, or give 0"
            )
        shape = results[found.name].shape
        self.end = graph_ending.ending(self.model, found.name, shape=shape)
        self._settle_axis(found, shape)
        self.candidates = [
            self._observed(value)
            for value in values
            if value.data_type
            and value.data_type not in onnx_graph.FLOATS
            and self._label_like(results[value.name].shape, shape)
        ]
        self.seen = results
        self.others = [value.name for value in values if value.name != found.name]

    def _settle_batch(self, outputs: list[str]) -> None:
        """See whether the batch is as free as the graph says."""
        rows = batch.only(self.runner, self.source, outputs)
        if rows is None:
            if self.batched and self.asked.sample is not None:
                batch.refuse_one_row(self.source, self.asked.sample)
            return
        if self.batched:
            raise InputError(batch.refusal(rows, self.model))
        if self.asked.sample is not None:
            batch.refuse_fewer_rows(self.source, self.asked.sample, rows)
        self.inputs = [
            replace(value, shape=(rows, *(value.shape or ("",))[1:])) for value in self.inputs
        ]
        self.source = replace(self.source, values=tuple(self.inputs))

    def _settle_axis(self, found: Value, shape: tuple[int, ...]) -> None:
        """Find the axis of the classes, and their number."""
        self.rounded = graph_ending.quantised(self.model)
        if self.batched and len(shape) == 1:
            self.axis, self.value = None, self._observed(found)
            return
        feeds = itertools.islice(self.source.feeds(2), AXIS_CALLS)
        seen = [self.runner(feed, [found.name])[found.name] for feed in feeds]
        tensors = {found.name, *([self.end.logits] if self.end else [])}
        signs = Signs(
            shape,
            self._free(found),
            self.batched or (self.free and len(shape) > 1),
            self.end,
            frozenset(graph_ending.argmax_axes(self.model, tensors, len(shape))),
            class_axis.sums_to_one(seen, rounded=self.rounded),
        )
        multi = self.asked.multi_label
        sigmoid = self.end is not None and self.end.op == "Sigmoid"
        alone = multi is True or (sigmoid and multi is None)
        try:
            self.axis = class_axis.find(signs, self.asked.class_axis, alone=alone)
        except InputError as error:
            raise InputError(f"output {found.name}: {error}") from None
        self.value = self._observed(found, self.axis)

    def _verify_zipmap(self) -> None:
        """See that the tensors before the ZipMaps hold what these would say."""
        runner = OnnxSession(self.path)
        for removed in self.zipmaps:
            if removed.output != self.value.name:
                continue
            feed = next(self.source.feeds(evidence_of.ZIPMAP_ROWS))
            maps = runner(feed, [removed.output])[removed.output]
            scores = self.runner(feed, [removed.output])[removed.output]
            zipmap.refuse_other_scores(maps, scores, removed)
            self.warnings.append(removed.warning)

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
            raise InputError(f"{said}; {onnx_run.hint(self.source)}") from None

    def _label_like(self, label: tuple[int, ...], scores: tuple[int, ...]) -> bool:
        if self.axis is None:
            return label in (scores, (*scores, 1))
        axis = self.axis % len(scores)
        before, after = scores[:axis], scores[axis + 1 :]
        return label != () and label in ((*before, *after), (*before, 1, *after))

    def _observed(self, value: Value, axis: int | None = None) -> Value:
        """Return an output with the shape that it was seen to have; ``axis`` has fixed size if so.

        A size that the file declares and that was not seen is not believed.
        """
        shapes = self._shapes(value.name)
        fixed = not any(isinstance(size, str) for one in self.inputs for size in one.shape or ())
        declared = value.shape if value.shape and len(value.shape) == len(shapes[0]) else None
        shape: list[int | str] = []
        for index, sizes in enumerate(zip(*shapes, strict=True)):
            said = declared[index] if declared else ""
            free = len(set(sizes)) > 1 or (isinstance(said, str) and not fixed)
            shape.append((said if isinstance(said, str) else "") if free else sizes[0])
        if axis is not None and len({sizes[axis] for sizes in shapes}) == 1:
            shape[axis] = shapes[0][axis]
        return replace(value, shape=tuple(shape))

    def _free(self, value: Value) -> tuple[bool, ...]:
        """Return which sizes of an output each request chooses: seen, or with a sample declared."""
        shapes = self._shapes(value.name)
        varied = tuple(len(set(sizes)) > 1 for sizes in zip(*shapes, strict=True))
        if self.source.sample is None or value.shape is None or len(value.shape) != len(varied):
            return varied
        return tuple(isinstance(size, str) for size in value.shape)

    def _shapes(self, name: str) -> list[tuple[int, ...]]:
        """Return shapes that an output has for other numbers of rows, and other free sizes."""
        sources = [self.source]
        inner = [size for value in self.inputs for size in (value.shape or ())[1:]]
        if self.source.sample is None and any(isinstance(size, str) for size in inner):
            sources += [replace(self.source, size=size) for size in onnx_run.SIZES]
        shapes = []
        for source in sources:
            for rows in (2, 3) if source is self.source and self.batched else (2,):
                try:
                    shapes.append(self.runner(next(source.feeds(rows)), [name])[name].shape)
                except Exception:  # a size that the graph does not take
                    if source is self.source:
                        raise
        return shapes

    def _gather(self) -> None:
        """Run the graph; conclude what its scores and its other outputs are."""
        if self.batched:
            evidence_of.refuse_dependent_rows(self.runner, self.source, self.value, self.axis)
        self.evidence: Evidence = evidence_of.gather(
            self.runner, self.source, self.value.name, axis=self.axis,
            labels=[value.name for value in self.candidates], rows=self._max_batch_size() or 2,
        )  # fmt: skip
        asked = self.asked
        try:
            self.scores, warnings = score_kind.understand(
                self.evidence.all_scores(),
                self.end,
                half=graph_ending.halved(self.model) or self.value.data_type == "TYPE_FP16",
                rounded=self.rounded,
                asked=asked.scores,
                multi_label=asked.multi_label,
            )
        except InputError as error:
            raise InputError(f"output {self.value.name}: {error}") from None
        self.warnings += warnings
        self.labels = [value for value in self.candidates if self._follows(value)]
        names = [value.name for value in self.labels]
        self.dropped = [name for name in self.others if name not in names]
        self.warnings += [self._dropped(name) for name in self.dropped]
        self.signature = Signature(
            tuple(onnx_signature.tensor_of(value, batched=self.batched) for value in self.inputs),
            onnx_signature.tensor_of(self.value, batched=self.batched),
            tuple(onnx_signature.tensor_of(value, batched=self.batched) for value in self.labels),
            self._max_batch_size(),
            LAST if self.axis is None else self.axis,
        )

    def _dropped(self, name: str) -> str:
        where = "random input; real rows with --sample may show that it does"
        if self.asked.sample is not None:
            where = "the rows of --sample"
        if name in [value.name for value in self.candidates]:
            return (
                f"output {name} is dropped: it was not seen to follow from the top class on {where}"
            )
        said = f"output {name} is dropped: what it says beside the scores can leak the model"
        if name in self.seen and graph_ending.ends(self.model, name, self.seen[name].shape):
            said += f"; to serve it too, protect the file again with --output {name} and a --name"
        return said

    def _max_batch_size(self) -> int:
        return (self.asked.max_batch_size or MAX_BATCH_SIZE) if self.batched else 0

    def _follows(self, value: Value) -> bool:
        free = isinstance((value.shape or (0,))[0], str)
        if self.scores.multi_label or (self.batched and not free):
            return False
        rows = self.evidence.all_scores()
        kind = "probabilities" if self.scores.cut is not None else self.scores.kind
        answer, clear = score_output.top(
            rows, self.value.data_type, kind=kind, sides=rows.shape[1] == 1
        )
        label = self.evidence.all_labels(value.name)
        return score_output.follows(label, answer.reshape(-1), clear.reshape(-1))


def _refuse_input(value: Value) -> None:
    where = f"input {value.name}"
    if not value.data_type:
        raise InputError(f"{where}: {onnx_graph.unserved(value)}")
    if value.shape is None:
        raise InputError(f"{where}: expected a known number of dimensions, the graph declares none")
    if value.shape == ():
        raise InputError(f"{where}: a scalar, which Triton cannot serve; give it a dimension")
