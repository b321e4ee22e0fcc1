"""An ONNX classifier, understood: read from its graph where that says it, found by running else."""

import itertools
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from exporters.graph import (
    external_data,
    onnx_graph,
    onnx_run,
    onnx_signature,
    triton_releases,
    zipmap,
)
from exporters.graph.onnx_graph import Value
from exporters.graph.onnx_run import OnnxSession, Source
from exporters.graph.onnx_signature import MAX_BATCH_SIZE, Signature
from exporters.graph.zipmap import Removed
from exporters.reading import batch, class_axis, graph_ending, score_kind, score_output
from exporters.reading import evidence as evidence_of
from exporters.reading.class_axis import LAST, Signs
from exporters.reading.evidence import Evidence
from exporters.reading.graph_ending import Ending
from exporters.reading.score_kind import ScoreKind
from postprocess.errors import InputError
from postprocess.parameters import Parameters

#: Calls whose scores are looked at for the axis of the classes.
AXIS_CALLS = 4


@dataclass(frozen=True, kw_only=True)
class ProtectOptions:
    """What a person says about their model; by default everything is found out."""

    name: str = ""  #: the public model name; "" is the file's stem
    scores: str = ""  #: "logits" or "probabilities"
    multi_label: bool | None = None
    class_axis: int | None = None  #: of the scores, the batch counted
    output: tuple[str, ...] = ()  #: those that hold scores, one for each head
    max_batch_size: int | None = None  #: 0: no batching
    max_client_batch: int | None = None  #: most rows of a client's request
    sample: Path | None = None  #: an .npz file of real rows
    self_contained: bool = False
    layout: str = "ensemble"
    force: bool = False
    also: str = ""  #: what ends the name of a second public model, which is written anew too

    def __post_init__(self) -> None:
        for output in self.output:
            if self.output.count(output) > 1:
                raise InputError(f"--output {output}: given twice; name each output once")


@dataclass(frozen=True)
class Head:
    """One output of scores, understood."""

    value: Value  #: the output, its K known
    axis: int | None  #: of the classes, -1 or counted from 0; None: the scores have only a batch
    scores: ScoreKind
    evidence: Evidence  #: what the graph gave on its source's input

    @property
    def class_axis(self) -> int:
        """The axis of the classes as clients see the scores, the batch counted."""
        return LAST if self.axis is None else self.axis

    @property
    def classes(self) -> int:
        """The number of classes, K; -1 where each request has its own."""
        size = 1 if self.axis is None else (self.value.shape or ())[self.axis]
        return size if isinstance(size, int) else -1

    def defence(self, asked: Parameters) -> Parameters:
        """Return the parameters of its defence: as asked, and what its scores are."""
        kind, multi_label = self.scores.kind, self.scores.multi_label
        return replace(asked, scores=kind, multi_label=multi_label, class_axis=self.class_axis)


@dataclass(frozen=True)
class Classifier:
    """An ONNX file, understood: what it takes and gives, and what its scores are."""

    path: Path
    asked: ProtectOptions
    model: Any  #: the graph, without ZipMaps
    external: list[str]  #: data files beside it
    inputs: list[Value]
    heads: list[Head]
    labels: list[Value]  #: outputs that follow from a head's top class
    dropped: list[str]  #: outputs that the protected models do not have
    signature: Signature
    source: Source  #: of input that the graph runs on
    warnings: list[str]


def understand(path: Path, asked: ProtectOptions) -> Classifier:
    """Return what a graph is: read, run, and concluded from both.

    Raises:
        InputError: no graph that can be protected, or what was asked does not fit it.
    """
    model = onnx_graph.load(path)
    warnings = triton_releases.warnings(model)
    external = external_data.files(model, path)
    inputs = onnx_graph.inputs(model)
    for value in inputs:
        _refuse_input(value)
    zipmaps = zipmap.take_off(model)
    runner = OnnxSession(path, graph=model.SerializeToString() if zipmaps else None)
    run, found, results = _find_scores(model, asked, runner, inputs)
    heads = []
    for value in found:
        head, more = _understand_head(run, value, results)
        heads.append(head)
        warnings += more if len(found) == 1 else [f"output {value.name}: {one}" for one in more]
    alike = {name for head in heads for name in head.evidence.labels}
    candidates = [one for one in onnx_graph.outputs(model) if one.name in alike]
    labels = [
        label
        for label in map(run.observed, candidates)
        if any(label_follows(label, head, run.batched) for head in heads)
    ]
    kept = {one.name for one in (*found, *labels)}
    dropped = [one.name for one in onnx_graph.outputs(model) if one.name not in kept]
    warnings += [_dropped(run, name, found, alike, results) for name in dropped]
    tensor = partial(onnx_signature.tensor_of, batched=run.batched)
    signature = Signature(
        tuple(map(tensor, run.inputs)), tuple(tensor(head.value) for head in heads),
        tuple(map(tensor, labels)), run.most_rows,
    )  # fmt: skip
    for head in heads:
        warnings += _verify_zipmap(path, zipmaps, head.value.name, run)
    return Classifier(
        path, asked, model, external, run.inputs, heads, labels, dropped, signature, run.source,
        warnings,
    )  # fmt: skip


@dataclass(frozen=True)
class _Run:
    """A graph and the input that it runs on."""

    model: Any
    asked: ProtectOptions
    runner: OnnxSession
    inputs: list[Value]
    free_batch: bool  #: as the graph says
    batched: bool
    source: Source

    @property
    def most_rows(self) -> int:
        """Most rows of a request; 0 where there is no batch."""
        return (self.asked.max_batch_size or MAX_BATCH_SIZE) if self.batched else 0

    def once(self, outputs: list[str]) -> dict[str, Any]:
        """Return what one call gives."""
        try:
            return self.runner(next(self.source.feeds(2)), outputs)
        except Exception as error:
            said = f"the graph fails: {onnx_run.one_line(error)}"
            raise InputError(f"{said}; {onnx_run.hint(self.source)}") from None

    def observed(self, value: Value, axis: int | None = None) -> Value:
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

    def free(self, value: Value) -> tuple[bool, ...]:
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
        if self.source.sample is None and not self.batched:
            sources += [replace(self.source, first=size) for size in onnx_run.ROWS[:3]]
        shapes = []
        for source in sources:
            for rows in (2, 3) if source is self.source and self.batched else (2,):
                try:
                    shapes.append(self.runner(next(source.feeds(rows)), [name])[name].shape)
                except Exception:  # a size that the graph does not take
                    if source is self.source:
                        raise
        return shapes


def _find_scores(
    model: Any, asked: ProtectOptions, runner: OnnxSession, inputs: list[Value]
) -> tuple[_Run, list[Value], dict[str, Any]]:
    """Return input that the graph runs on, each head's scores, and what one call gave."""
    values, wanted = onnx_graph.outputs(model), asked.max_batch_size
    names = [value.name for value in values if value.data_type]
    if not names:
        score_output.find(model, values, {}, asked.output)

    def source(batched: bool, inputs: list[Value]) -> Source:
        if asked.sample is not None:
            return onnx_run.read_sample(asked.sample, inputs, batched)
        return onnx_run.random_source(runner, inputs, names, batched, onnx_graph.strings(model))

    free = all(map(onnx_signature.has_free_batch, inputs))
    batched = wanted != 0 and free
    run = _Run(model, asked, runner, inputs, free, batched, source(batched, inputs))
    if free:
        run = _settle_batch(run, names)
    results = run.once(names)
    found = score_output.find(model, values, results, asked.output)
    if run.batched and not all(
        evidence_of.follows_batch(runner, run.source, one.name) for one in found
    ):
        run = replace(run, batched=False, source=source(False, run.inputs))
        results = run.once(names)
    if wanted and not run.batched:
        raise InputError(
            f"--max-batch-size {wanted}: the graph has no free batch dimension in every input "
            f"and in {' and '.join(one.name for one in found)}; leave it out, or give 0"
        )
    return run, found, results


def _settle_batch(run: _Run, outputs: list[str]) -> _Run:
    """Return the run with the batch as free as it is, whatever the graph says."""
    rows = batch.only(run.runner, run.source, outputs)
    sample = run.asked.sample
    if rows is None:
        if run.batched and sample is not None:
            batch.refuse_one_row(run.source, sample)
        return run
    if run.batched:
        raise InputError(batch.refusal(rows, run.model))
    if sample is not None:
        batch.refuse_fewer_rows(run.source, sample, rows)
    inputs = [replace(value, shape=(rows, *(value.shape or ("",))[1:])) for value in run.inputs]
    return replace(run, inputs=inputs, source=replace(run.source, values=tuple(inputs)))


def _understand_head(run: _Run, found: Value, results: dict[str, Any]) -> tuple[Head, list[str]]:
    """Return what an output of scores is, and what to know about it."""
    shape = results[found.name].shape
    end = graph_ending.ending(run.model, found.name, shape=shape)
    axis = _find_axis(run, found, shape, end)
    value = run.observed(found, axis)
    labels = [
        one.name
        for one in onnx_graph.outputs(run.model)
        if one.data_type
        and one.data_type not in onnx_graph.FLOATS
        and label_like(results[one.name].shape, shape, axis)
    ]
    if run.batched:
        evidence_of.refuse_dependent_rows(run.runner, run.source, value, axis)
    evidence = evidence_of.gather(
        run.runner, run.source, value.name, axis=axis, labels=labels, rows=run.most_rows or 2
    )
    try:
        scores, warnings = score_kind.understand(
            evidence.all_scores(),
            end,
            half=graph_ending.halved(run.model) or value.data_type == "TYPE_FP16",
            rounded=graph_ending.quantised(run.model),
            asked=run.asked.scores,
            multi_label=run.asked.multi_label,
        )
    except InputError as error:
        raise InputError(f"output {value.name}: {error}") from None
    return Head(value, axis, scores, evidence), warnings


def _find_axis(run: _Run, found: Value, shape: tuple[int, ...], end: Ending | None) -> int | None:
    """Return the axis of the classes, None where the scores have only a batch."""
    if run.batched and len(shape) == 1:
        return None
    feeds = itertools.islice(run.source.feeds(2), AXIS_CALLS)
    seen = [run.runner(feed, [found.name])[found.name] for feed in feeds]
    tensors = {found.name, *([end.logits] if end else [])}
    signs = Signs(
        shape,
        run.free(found),
        run.batched or (run.free_batch and len(shape) > 1),
        end,
        frozenset(graph_ending.argmax_axes(run.model, tensors, len(shape))),
        class_axis.sums_to_one(seen, rounded=graph_ending.quantised(run.model)),
    )
    try:
        return class_axis.find(signs, run.asked.class_axis, multi_label=run.asked.multi_label)
    except InputError as error:
        raise InputError(f"output {found.name}: {error}") from None


def label_like(label: tuple[int, ...], scores: tuple[int, ...], axis: int | None) -> bool:
    """Say whether an output has the shape of a label of each row of scores."""
    if axis is None:
        return label in (scores, (*scores, 1))
    before, after = scores[: axis % len(scores)], scores[axis % len(scores) + 1 :]
    return label != () and label in ((*before, *after), (*before, 1, *after))


def label_follows(label: Value, head: Head, batched: bool) -> bool:
    """Say whether a label was seen to follow from a head's top class."""
    scores, evidence = head.scores, head.evidence
    free = isinstance((label.shape or (0,))[0], str)
    if label.name not in evidence.labels or scores.multi_label or (batched and not free):
        return False
    rows = evidence.all_scores()
    kind = "probabilities" if scores.cut is not None else scores.kind
    answer, clear = score_output.top(
        rows, head.value.data_type, kind=kind, sides=rows.shape[1] == 1
    )
    said = evidence.all_labels(label.name)
    return score_output.follows(said, answer.reshape(-1), clear.reshape(-1))


def _dropped(
    run: _Run, name: str, scores: list[Value], candidates: set[str], seen: dict[str, Any]
) -> str:
    where = "random input; real rows with --sample may show that it does"
    if run.asked.sample is not None:
        where = "the rows of --sample"
    if name in candidates:
        return f"output {name} is dropped: it was not seen to follow from the top class on {where}"
    said = f"output {name} is dropped: what it says beside the scores can leak the model"
    floats = name in seen and seen[name].dtype.kind == "f"
    if floats and graph_ending.ends(run.model, name, seen[name].shape):
        every = " ".join(f"--output {one}" for one in (*(one.name for one in scores), name))
        layout = " --layout ensemble" if run.asked.layout == "fused" else ""
        said += f"; to serve it too, with a defence of its own, give {every}{layout}"
    return said


def _verify_zipmap(path: Path, zipmaps: list[Removed], scores: str, run: _Run) -> list[str]:
    """Return warnings, once the tensors before the ZipMaps hold what these would say."""
    warnings = []
    for removed in zipmaps:
        if removed.output == scores:
            feed = next(run.source.feeds(evidence_of.ZIPMAP_ROWS))
            maps = OnnxSession(path)(feed, [scores])[scores]
            zipmap.refuse_other_scores(maps, run.runner(feed, [scores])[scores], removed)
            warnings.append(removed.warning)
    return warnings


def _refuse_input(value: Value) -> None:
    where = f"input {value.name}"
    if not value.data_type:
        raise InputError(f"{where}: {onnx_graph.unserved(value)}")
    if value.shape is None:
        raise InputError(f"{where}: expected a known number of dimensions, the graph declares none")
    if value.shape == ():
        raise InputError(f"{where}: a scalar, which Triton cannot serve; give it a dimension")
