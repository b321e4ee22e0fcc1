"""The question kept beside a protected model, chosen where a raw answer is best told from its own.

What the file holds is in ``postprocess.question``; here its answer is seen, once when the model is
protected and again when its parameters change.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from exporters.graph.onnx_run import Feed, GraphRunner, Source
from exporters.reading.evidence import Evidence
from postprocess.arrays import Array, Float64
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.question import DTYPES, Looks, Question, QuestionTensor, as_rows, is_flat, readings

#: How far a raw score has to be from the protected ones for bounds to be kept, and how far those
#: are from what was seen, as the last digits hang on the machine.
GAP, SLACK = 0.06, 0.02
#: Rows that are tried.
CANDIDATES = 8
#: Asked of a defence that draws at random, to see how far its answers lie apart.
DRAWS = 32
#: Bytes of a file from which a made-up question of few different numbers is tried.
LARGE, PATTERN = 2**18, 256
#: Distance of the two highest scores from which a row is as confident as any.
CERTAIN = 30.0


@dataclass(frozen=True)
class AnswerSource:
    """What is needed to see a model's answers."""

    raw: Callable[[Feed], Array]  #: inputs to the victim's scores, of any shape
    protect: Callable[[Array], Array]  #: rows of scores (rows, K) to protected ones
    parameters: Parameters
    output: str
    batched: bool
    axis: int = -1  #: of the classes in the scores


def of_answers(
    runner: GraphRunner,
    source: Source,
    evidence: Evidence,
    parameters: Parameters,
    output: str,
    *,
    batched: bool,
) -> Question | None:
    """Return the question to keep beside a protected model, of its own confident rows, or None."""

    def raw(feed: Feed) -> Array:
        return runner(feed, [output])[output]

    defence, axis = Postprocessor(parameters), parameters.class_axis
    model = AnswerSource(raw, defence, parameters, output, batched, axis=axis)
    return choose(model, most_confident(source, evidence, single=parameters.multi_label))


def choose(model: AnswerSource, candidates: Iterable[Feed]) -> Question | None:
    """Return the question whose raw answer differs most from the protected one, None of none.

    Args:
        model: is asked.
        candidates: inputs as the graph takes them, of one row where the batch is free.
    """
    best: tuple[tuple[bool, bool, float], Question] | None = None
    for feed in candidates:
        for inputs in _and_smaller(feed):
            seen = see(model, tensors(inputs, batched=model.batched), inputs)
            if seen is None:
                continue
            gap, question = seen
            small = len(question.text()) <= LARGE
            rank = (question.looks.tells_raw, small, gap)
            if best is None or rank > best[0]:
                best = rank, question
            if small:
                break
    return None if best is None else best[1]


def see(
    model: AnswerSource, inputs: tuple[QuestionTensor, ...], feed: Feed
) -> tuple[float, Question] | None:
    """Return a question with what its answer looks like, and the gap to a raw one.

    None where the graph does not take the inputs, or the defence not the scores.
    """
    try:
        scores = model.raw(feed)
        if model.batched and scores.ndim == 1:
            scores = scores.reshape(-1, 1)
        moved = np.moveaxis(scores, model.axis, -1)
        rows = np.ascontiguousarray(moved.reshape(-1, moved.shape[-1]))
        repeats = model.parameters.repeats
        answers = [model.protect(rows) for _ in range(1 if repeats else DRAWS)]
    except Exception:  # whatever onnxruntime raises at inputs that a graph does not take
        return None
    raw = as_rows(scores, model.axis)
    if not np.isfinite(raw).all() or not np.isfinite(answers[0]).all():
        return None
    single = model.parameters.multi_label or raw.shape[1] == 1
    looks = Looks(model.output, scores.shape, model.axis, sum_to_1=not single, repeats=repeats)
    gap, looks = _bounded(looks, raw, np.stack(answers).astype(np.float64))
    if model.parameters.calibration is not None:
        looks = _flat(looks, raw.astype(scores.dtype), answers[0])
    return gap, Question(inputs, model.parameters.to_strings(), looks)


def again(model: AnswerSource, question: Question, ranks: Sequence[int]) -> Question:
    """Return a question with what the answer looks like under other parameters.

    Args:
        model: with the parameters that are to come into force.
        question: as it was kept.
        ranks: of the graph's inputs, in the order of the question's.
    """
    feed = {
        one.name: one.values.reshape(-1) if rank == 1 else one.values
        for one, rank in zip(question.inputs, ranks, strict=True)
    }
    feed = {
        name: _each(array, bytes.decode) if array.dtype == object else array
        for name, array in feed.items()
    }
    seen = see(model, question.inputs, feed)
    if seen is None:
        return replace(question.unbound(), parameters=model.parameters.to_strings())
    return seen[1]


def most_confident(source: Source, evidence: Evidence, *, single: bool) -> Iterator[Feed]:
    """Yield inputs of those rows whose scores say most clearly which class it is."""
    found = [
        (confidence, call, row)
        for call, part in enumerate(evidence.scores)
        for row, confidence in _clearest(confidences(part, single=single))
    ]
    found = sorted(found, key=lambda one: -one[0])[:CANDIDATES]
    last = max((call for _, call, _ in found), default=-1)
    feeds = zip(range(last + 1), source.feeds(evidence.rows_at_once), strict=False)
    kept = {call: feed for call, feed in feeds if any(call == one for _, one, _ in found)}
    for _, call, row in found:
        feed = kept[call]
        if not source.batched:
            yield feed
            continue
        items = len(next(iter(feed.values())))
        item = row * items // len(evidence.scores[call])
        yield {name: array[item : item + 1] for name, array in feed.items()}


def confidences(scores: Array, *, single: bool) -> Float64:
    """Return how clear each row of scores is, shape (rows,); -1 where one is not finite."""
    rows = scores.astype(np.float64)
    finite = np.isfinite(rows).all(axis=1)
    rows = np.where(finite[:, None], rows, 0.0)
    if single or rows.shape[1] == 1:
        middle = 0.5 if rows.min() >= 0 and rows.max() <= 1 else 0.0
        clear = np.abs(rows - middle).max(axis=1)
    else:
        two = np.partition(rows, -2, axis=1)[:, -2:]
        clear = two[:, 1] - two[:, 0]
    result: Float64 = np.where(finite, np.minimum(clear, CERTAIN), -1.0)
    return result


def tensors(feed: Feed, *, batched: bool) -> tuple[QuestionTensor, ...]:
    """Return inputs as clients send them: what is (batch,) to the graph is (batch, 1) to Triton."""
    found = []
    for name, array in feed.items():
        values = array.reshape(-1, 1) if batched and array.ndim == 1 else array
        if values.dtype.kind in "OU":
            strings = _each(values, lambda one: one if isinstance(one, bytes) else one.encode())
            found.append(QuestionTensor(name, "BYTES", strings))
            continue
        (datatype,) = [key for key, dtype in DTYPES.items() if dtype == values.dtype]
        found.append(QuestionTensor(name, datatype, np.ascontiguousarray(values)))
    return tuple(found)


def _clearest(clear: Float64) -> list[tuple[int, float]]:
    order = np.argsort(-clear, kind="stable")[:CANDIDATES]
    return [(int(row), float(clear[row])) for row in order if clear[row] >= 0]


def _bounded(looks: Looks, raw: Float64, answers: Array) -> tuple[float, Looks]:
    """Return the widest gap between raw and protected scores, and the bounds that it allows.

    Args:
        looks: without bounds.
        raw: the victim's scores, shape (rows, K).
        answers: of the defence, shape (draws, rows, K).
    """
    low, high = answers.min(axis=0), answers.max(axis=0)
    gaps = np.min([np.maximum(low - one, one - high) for one in readings(raw, 1)], axis=0)
    if looks.sum_to_1:  # of a row of classes the top one alone is looked at
        rows = np.arange(len(raw))
        tops = answers[0].argmax(axis=1)
        row = int(gaps[rows, tops].argmax())
        top = int(tops[row])
    else:
        row, top = (int(one) for one in np.unravel_index(gaps.argmax(), gaps.shape))
    gap = float(gaps[row, top])
    least, most = (None, None) if gap < GAP else _outwards(low[row, top], high[row, top])
    return gap, replace(looks, row=row, top=top, least=least, most=most)


def _flat(looks: Looks, raw: Array, answer: Array) -> Looks:
    """Return looks with a row whose rest is flat and in no raw answer, where there is one.

    Args:
        looks: with bounds, if there are any; their row is kept.
        raw: the victim's scores in their own type, shape (rows, K).
        answer: of the defence, same shape.
    """
    if not looks.sum_to_1 or not looks.repeats or raw.shape[1] < 3:
        return looks
    ways = [one.astype(raw.dtype) for one in readings(raw.astype(np.float64), 1)]
    for row in [looks.row] if looks.least is not None else range(len(answer)):
        if is_flat(answer[row]) and not any(is_flat(way[row]) for way in ways):
            return replace(looks, row=row, top=int(answer[row].argmax()), flat=True)
    return looks


def _outwards(low: float, high: float) -> tuple[float, float]:
    """Return bounds of two decimals, at least SLACK apart from the answers."""
    return (
        max(0.0, math.floor((low - SLACK) * 100) / 100),
        min(1.0, math.ceil((high + SLACK) * 100) / 100),
    )


def _and_smaller(feed: Feed) -> Iterator[Feed]:
    """Yield inputs, then the same with few different entries, which pack into little."""
    yield feed
    yield {
        name: np.resize(array.reshape(-1)[:PATTERN], array.shape) for name, array in feed.items()
    }


def _each(array: Array, change: Callable[[Any], Any]) -> Array:
    changed = np.empty(array.shape, np.object_)
    changed.reshape(-1)[:] = [change(entry) for entry in array.reshape(-1)]
    return changed
