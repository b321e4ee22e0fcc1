"""What a model's scores are, asked of the model itself, or told by a person; never guessed.

A config.pbtxt says neither whether scores are logits nor which axis holds the classes. The model
is run on random input, or on a sample, and what is concluded from its answers is concluded as
from an ONNX file's.
"""

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

from deploy.existing.reading import ExistingModel
from deploy.repository import model_config
from exporters.fusing import fused
from exporters.graph import onnx_graph, onnx_run
from exporters.graph.onnx_graph import FLOATS, Value
from exporters.graph.onnx_run import Feed, GraphRunner, Source
from exporters.reading import class_axis, graph_ending, score_kind
from exporters.reading import evidence as evidence_of
from exporters.reading.class_axis import Signs
from exporters.reading.classifier import AXIS_CALLS, Head, ProtectOptions, label_follows, label_like
from exporters.reading.evidence import Evidence
from exporters.reading.graph_ending import Ending
from exporters.reading.score_kind import ScoreKind
from exporters.reading.score_output import NAMES, refuse_columns, several
from exporters.repository import versions
from postprocess.arrays import Array
from postprocess.errors import InputError

#: Bytes of an ONNX file from which it is not read, for the memory's sake: its answers tell enough.
READ_BYTES = 2**26
#: Calls whose answers the written models are compared with.
COMPARED_CALLS = 8


@dataclass(frozen=True)
class Understood:
    """What is known of a model's scores, and from where."""

    heads: list[Head]
    labels: list[str]  #: outputs that follow from a head's top class
    dropped: list[str]
    how: list[str]  #: from where each head is known, in words
    source: Source | None = None  #: of input that the model runs on; None: it was not run
    answers: list[tuple[Feed, dict[str, Array]]] = field(default_factory=list)  #: for comparing
    warnings: list[str] = field(default_factory=list)

    @property
    def outputs(self) -> list[str]:
        """The outputs of scores, one of each head."""
        return [head.value.name for head in self.heads]


@dataclass(frozen=True)
class _Run:
    """A model and the input that it runs on."""

    model: ExistingModel
    asked: ProtectOptions
    runner: GraphRunner
    graph: Any
    source: Source
    made: list[Value]
    most: int  #: rows of a call
    results: dict[str, Array]  #: of one call


def ask(model: ExistingModel, runner: GraphRunner, asked: ProtectOptions) -> Understood:
    """Return what a model's answers say about its scores.

    Raises:
        InputError: it does not run, what was asked contradicts what is seen, or it is not clear.
    """
    config = model.config
    given, made = ([model.value(one) for one in side] for side in (config.input, config.output))
    graph = _graph(model)
    found = _outputs(made, asked)
    names = [one.name for one in made]
    if asked.sample is not None:
        source = onnx_run.read_sample(asked.sample, given, model.batched)
    else:
        words = onnx_graph.strings(graph) if graph is not None else []
        source = onnx_run.random_source(runner, given, names, model.batched, words)
    most = asked.max_client_batch or config.max_batch_size or 2
    results = runner(next(source.feeds(min(2, most))), names)
    refuse_columns(results, [one.name for one in found])
    run = _Run(model, asked, runner, graph, source, made, most, results)
    heads, how, warnings = [], [], []
    for value in found:
        head, said, more = _head(run, value)
        heads.append(head)
        how.append(said)
        warnings += more if len(found) == 1 else [f"output {value.name}: {one}" for one in more]
    labels = [
        one.name for one in made if any(label_follows(one, head, model.batched) for head in heads)
    ]
    scores = [one.name for one in found]
    feeds = itertools.islice(source.feeds(heads[0].evidence.rows_at_once), COMPARED_CALLS)
    answers = [(feed, runner(feed, scores)) for feed in feeds]
    dropped = [name for name in names if name not in (*scores, *labels)]
    return Understood(heads, labels, dropped, how, source, answers, warnings)


def _head(run: _Run, found: Value) -> tuple[Head, str, list[str]]:
    """Return what an output of scores is, from where that is known, and what to know about it."""
    asked, shape = run.asked, run.results[found.name].shape
    end = _ending(run.model, run.graph, found.name, shape)
    feeds = itertools.islice(run.source.feeds(min(2, run.most)), AXIS_CALLS)
    seen = [run.runner(feed, [found.name])[found.name] for feed in feeds]
    sums = class_axis.sums_to_one(seen, rounded=False)
    axis = _axis(found, shape, asked, batched=run.model.batched, end=end, sums=sums)
    labels = [
        one.name
        for one in run.made
        if one.data_type not in FLOATS and label_like(run.results[one.name].shape, shape, axis)
    ]
    evidence = evidence_of.gather(
        run.runner, run.source, found.name, axis=axis, labels=labels, rows=run.most
    )
    try:
        kind, warnings = score_kind.understand(
            evidence.all_scores(),
            end,
            half=found.data_type == "TYPE_FP16",
            rounded=run.graph is not None and graph_ending.quantised(run.graph),
            asked=asked.scores,
            multi_label=asked.multi_label,
        )
    except InputError as error:
        raise InputError(f"output {found.name}: {error}") from None
    count = len(evidence.all_scores())
    how = f"seen on {count} rows" if asked.sample is None else f"seen on {count} rows of --sample"
    if end is not None:
        how = f"read from its graph, which ends in a {end.op}, and {how}"
    return Head(found, axis, _uncut(kind, asked, found.name), evidence), how, warnings


def told(model: ExistingModel, asked: ProtectOptions, why: str) -> Understood:
    """Return what a person says about a model that cannot be asked.

    Raises:
        InputError: not all is said that has to be.
    """
    made = list(map(model.value, model.config.output))
    found = _outputs(made, asked)
    heads = [_told(model, asked, value, why) for value in found]
    dropped = [one.name for one in made if one not in found]
    return Understood(heads, [], dropped, [f"told, not verified: {why}"] * len(heads))


def _told(model: ExistingModel, asked: ProtectOptions, found: Value, why: str) -> Head:
    """Return what a person says about an output of scores."""
    declared = found.shape or ()
    shape = tuple(size if isinstance(size, int) else 2 for size in declared)
    way_out = f"{why}; give --url HOST:PORT of a Triton that serves it, or say what it gives"
    if not asked.scores:
        raise InputError(f"{way_out}: --scores logits or --scores probabilities")
    try:
        axis = _axis(found, shape, asked, batched=model.batched)
    except InputError as error:
        raise InputError(f"{way_out}: {error}") from None
    if asked.multi_label is None and declared[axis] != 1:
        raise InputError(f"{way_out}: --multi-label or --no-multi-label")
    kind = ScoreKind(asked.scores, bool(asked.multi_label) and declared[axis] != 1, None)
    return Head(found, axis, kind, Evidence(0, axis))


def _outputs(made: list[Value], asked: ProtectOptions) -> list[Value]:
    """Return the outputs of scores: those that were asked for, or the only one."""
    floats = {one.name: one for one in made if one.data_type in FLOATS}
    there = ", ".join(floats)
    for name in asked.output:
        if name not in floats:
            raise InputError(f"--output {name}: no such output of floats; there are {there}")
    if asked.output:
        return [floats[name] for name in asked.output]
    named = [one for one in floats.values() if one.name.lower() in NAMES]
    for candidates in (list(floats.values()), named):
        if len(candidates) == 1:
            return candidates
    raise InputError(several([*floats]))


def _axis(
    found: Value,
    shape: tuple[int, ...],
    asked: ProtectOptions,
    *,
    batched: bool,
    end: Ending | None = None,
    sums: frozenset[int] = frozenset(),
) -> int:
    free = tuple(isinstance(size, str) for size in found.shape or ())
    if len(shape) != len(free):
        raise InputError(
            f"output {found.name}: expected as many axes as config.pbtxt declares, {len(free)}"
            f"{', the batch among them' if batched else ''}, got an answer of {len(shape)}: "
            f"{list(shape)}; correct dims there"
        )
    signs = Signs(shape, free, batched, end, frozenset(), sums)
    try:
        return class_axis.find(signs, asked.class_axis, multi_label=asked.multi_label)
    except InputError as error:
        raise InputError(f"output {found.name}: {error}") from None


def _graph(model: ExistingModel) -> Any:
    """Return the ONNX graph that the model serves, None where it is none, or a large one."""
    if model_config.backend_of(model.config) != "onnxruntime":
        return None
    file = versions.graph(versions.served(model.folder, model.config)[-1], model.config)
    if not file.is_file() or file.stat().st_size > READ_BYTES:
        return None
    graph = onnx_graph.load(file)
    fused.refuse_defended(graph)
    return graph


def _ending(model: ExistingModel, graph: Any, output: str, shape: tuple[int, ...]) -> Ending | None:
    reshaped = any(one.HasField("reshape") for one in model.config.output if one.name == output)
    if graph is None:
        return None
    end = graph_ending.ending(graph, output, shape=shape)
    return None if end is not None and reshaped and end.op != "Sigmoid" else end


def _uncut(kind: ScoreKind, asked: ProtectOptions, output: str) -> ScoreKind:
    """Return what the scores are as the model's own file gives them, which stays as it is."""
    if kind.cut is None:
        return kind
    way_out = "the model's files stay as they are; give its .onnx file to protect, which cuts it"
    if asked.scores == "logits":
        raise InputError(f"--scores logits: output {output} ends in a {kind.cut.op}, and {way_out}")
    if kind.cut.op == "Sigmoid" and not kind.multi_label and asked.multi_label is False:
        raise InputError(f"--no-multi-label: output {output} ends in a Sigmoid, and {way_out}")
    return replace(kind, kind="probabilities", cut=None)
