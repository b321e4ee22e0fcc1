"""What a model's scores are, asked of the model itself, or told by a person; never guessed.

A config.pbtxt says neither whether scores are logits nor which axis holds the classes. The model
is run on random input, or on a sample, and what is concluded from its answers is concluded as
from an ONNX file's.
"""

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

from deploy.existing.reading import ExistingModel, backend_of
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
from exporters.reading.score_output import NAMES
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

    head: Head
    labels: list[str]  #: outputs that follow from the top class
    dropped: list[str]
    how: str  #: from where it is known, in words
    source: Source | None = None  #: of input that the model runs on; None: it was not run
    answers: list[tuple[Feed, Array]] = field(default_factory=list)  #: a few, for comparing
    warnings: list[str] = field(default_factory=list)

    @property
    def output(self) -> str:
        """The output of the scores."""
        return self.head.value.name


def ask(model: ExistingModel, runner: GraphRunner, asked: ProtectOptions) -> Understood:
    """Return what a model's answers say about its scores.

    Args:
        model: as its config.pbtxt says.
        runner: of it, whose arrays have the shapes that clients see.
        asked: what a person says.

    Raises:
        InputError: it does not run, what was asked contradicts what is seen, or it is not clear.
    """
    config = model.config
    given, made = ([model.value(one) for one in side] for side in (config.input, config.output))
    graph = _graph(model)
    found = _output(made, asked)
    names = [one.name for one in made]
    if asked.sample is not None:
        source = onnx_run.read_sample(asked.sample, given, model.batched)
    else:
        words = onnx_graph.strings(graph) if graph is not None else []
        source = onnx_run.random_source(runner, given, names, model.batched, words)
    most = asked.max_client_batch or config.max_batch_size or 2
    rows = min(2, most)
    results = runner(next(source.feeds(rows)), names)
    shape = results[found.name].shape
    end = _ending(model, graph, found.name, shape)
    feeds = itertools.islice(source.feeds(rows), AXIS_CALLS)
    seen = [runner(feed, [found.name])[found.name] for feed in feeds]
    sums = class_axis.sums_to_one(seen, rounded=False)
    axis = _axis(found, shape, asked, batched=model.batched, end=end, sums=sums)
    labels = [
        one
        for one in made
        if one.data_type not in FLOATS and label_like(results[one.name].shape, shape, axis)
    ]
    evidence = evidence_of.gather(
        runner, source, found.name, axis=axis, labels=[one.name for one in labels], rows=most
    )
    kind, warnings = score_kind.understand(
        evidence.all_scores(),
        end,
        half=found.data_type == "TYPE_FP16",
        rounded=graph is not None and graph_ending.quantised(graph),
        asked=asked.scores,
        multi_label=asked.multi_label,
    )
    head = Head(found, axis, _uncut(kind, asked, found.name), evidence)
    follow = [one.name for one in labels if label_follows(one, head, model.batched)]
    feeds = itertools.islice(source.feeds(evidence.rows_at_once), COMPARED_CALLS)
    answers = [(feed, runner(feed, [found.name])[found.name]) for feed in feeds]
    count = len(evidence.all_scores())
    how = f"seen on {count} rows" if asked.sample is None else f"seen on {count} rows of --sample"
    if end is not None:
        how = f"read from its graph, which ends in a {end.op}, and {how}"
    dropped = [one.name for one in made if one.name not in (found.name, *follow)]
    return Understood(head, follow, dropped, how, source, answers, warnings)


def told(model: ExistingModel, asked: ProtectOptions, why: str) -> Understood:
    """Return what a person says about a model that cannot be asked.

    Args:
        model: as its config.pbtxt says.
        asked: what the person says.
        why: it cannot be asked.

    Raises:
        InputError: not all is said that has to be.
    """
    made = list(map(model.value, model.config.output))
    found = _output(made, asked)
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
    dropped = [one.name for one in made if one is not found]
    return Understood(
        Head(found, axis, kind, Evidence(0, axis)), [], dropped, f"told, not verified: {why}"
    )


def _output(made: list[Value], asked: ProtectOptions) -> Value:
    """Return the output of the scores: the one that was asked for, or the only one."""
    floats = [one for one in made if one.data_type in FLOATS]
    there = ", ".join(one.name for one in floats)
    if len(asked.output) > 1:
        raise InputError(
            "--output: of a model that stands in a repository, one output is protected; give one, "
            "or its .onnx file, of which each gets a defence of its own"
        )
    if asked.output:
        (name,) = asked.output
        found = [one for one in floats if one.name == name]
        if not found:
            raise InputError(f"--output {name}: no such output of floats; there are {there}")
        return found[0]
    named = [one for one in floats if one.name.lower() in NAMES]
    for candidates in (floats, named):
        if len(candidates) == 1:
            return candidates[0]
    raise InputError(
        f"several outputs could be the scores: {there}; name one with --output, for example "
        f"--output {floats[0].name}: the others are dropped, for scores beside the protected ones "
        "would leak the model"
    )


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
            f"output {found.name}: config.pbtxt declares {len(free)} axes, the batch among them, "
            f"and it answers with {len(shape)}"
        )
    signs = Signs(shape, free, batched, end, frozenset(), sums)
    try:
        return class_axis.find(signs, asked.class_axis, multi_label=asked.multi_label)
    except InputError as error:
        raise InputError(f"output {found.name}: {error}") from None


def _graph(model: ExistingModel) -> Any:
    """Return the ONNX graph that the model serves, None where it is none, or a large one."""
    if backend_of(model.config) != "onnxruntime":
        return None
    file = versions.graph(versions.served(model.folder, model.config)[-1], model.config)
    if not file.is_file() or file.stat().st_size > READ_BYTES:
        return None
    return onnx_graph.load(file)


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
