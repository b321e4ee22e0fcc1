"""What a graph gives on many inputs: what is concluded about it is concluded from this."""

import itertools
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from exporters.graph.onnx_graph import Value
from exporters.graph.onnx_run import Feed, GraphRunner, Source, hint, one_line
from postprocess.arrays import Array
from postprocess.errors import InputError

#: Rows, stored scores and seconds after which enough was seen.
ENOUGH_ROWS = 4096
ENOUGH_SCORES = 2**23
ENOUGH_SECONDS = 10.0
#: How far scores may move, as a share of the largest, when rows run apart.
ROUNDING = {"TYPE_FP16": 3e-2, "TYPE_FP32": 1e-3, "TYPE_FP64": 1e-3}
#: Rows on which a ZipMap is compared with the tensor before it.
ZIPMAP_ROWS = 64
#: Calls on which rows are run together and apart.
INDEPENDENCE_CALLS = 4


@dataclass(frozen=True)
class Evidence:
    """The scores of a graph, and its other outputs that may be labels, call by call."""

    rows_at_once: int
    axis: int | None  #: of the classes; None: the scores have none, shape (batch,)
    scores: list[Array] = field(default_factory=list)  #: each (rows, K), in the graph's own type
    labels: dict[str, list[Array]] = field(default_factory=dict)  #: each (rows,)

    def finite(self) -> NDArray[np.bool_]:
        """Return which rows hold finite scores only, of all calls, shape (all rows,)."""
        return np.concatenate([np.isfinite(part).all(axis=1) for part in self.scores])

    def all_scores(self) -> NDArray[np.float64]:
        """Return the finite scores of all calls, shape (rows, K)."""
        return np.concatenate(self.scores).astype(np.float64)[self.finite()]

    def all_labels(self, name: str) -> Array:
        """Return a label of the rows that ``all_scores`` has, shape (rows,)."""
        return np.concatenate(self.labels[name])[self.finite()]


def as_rows(scores: Array, axis: int | None) -> Array:
    """Return scores of any shape as rows of K, shape (rows, K); ``axis`` holds the classes."""
    if axis is None:
        return scores.reshape(-1, 1)
    moved = np.moveaxis(scores, axis, -1)
    return moved.reshape(-1, moved.shape[-1])


def gather(
    runner: GraphRunner,
    source: Source,
    scores: str,
    *,
    axis: int | None,
    labels: list[str],
    rows: int,
) -> Evidence:
    """Return what the graph gives on thousands of rows, or on as many as there is time for.

    Args:
        runner: of the graph.
        source: of inputs.
        scores: the output that holds the scores.
        axis: of the classes, None where its only axis is the batch.
        labels: outputs that may be labels.
        rows: most rows of one call.

    Raises:
        InputError: a call fails, or no row has finite scores.
    """
    evidence = Evidence(min(rows, source.rows_at_once()), axis, [], {name: [] for name in labels})
    seen, start = 0, time.monotonic()
    for feed in source.feeds(evidence.rows_at_once):
        try:
            results = runner(feed, [scores, *labels])
        except Exception as error:
            raise InputError(f"the graph fails: {one_line(error)}; {hint(source)}") from None
        part = as_rows(results[scores], axis)
        evidence.scores.append(part)
        for name in labels:
            evidence.labels[name].append(results[name].reshape(-1))
        seen += len(part)
        slow = time.monotonic() - start > ENOUGH_SECONDS
        if seen >= ENOUGH_ROWS or seen * part.shape[1] >= ENOUGH_SCORES or slow:
            break
    if not evidence.finite().any():
        raise InputError(f"every score is NaN or infinite; {hint(source)}")
    return evidence


def refuse_dependent_rows(
    runner: GraphRunner, source: Source, scores: Value, axis: int | None
) -> None:
    """Refuse a graph whose answer to a row depends on the rows beside it.

    Triton merges the requests of different clients, who would then see each other's rows.

    Raises:
        InputError: rows that run together and apart get different scores.
    """
    # Few rows, but never one alone, which would show nothing.
    rows = max(2, min(4, source.rows_at_once()))
    tolerance = ROUNDING[scores.data_type]
    for feed in itertools.islice(source.feeds(rows), INDEPENDENCE_CALLS):
        together = _run(runner, feed, scores.name)
        count = min(len(array) for array in feed.values())
        apart = [
            _run(runner, {name: array[row : row + 1] for name, array in feed.items()}, scores.name)
            for row in range(count)
        ]
        if len(together) == count and all(len(one) == 1 for one in apart):
            a = as_rows(together, axis).astype(np.float64)
            b = as_rows(np.concatenate(apart), axis).astype(np.float64)
            finite = np.isfinite(a).all(axis=1)
            # A deviation over one row is no number: a row must be finite in both or in none.
            same = np.array_equal(finite, np.isfinite(b).all(axis=1))
            a, b = a[finite], b[finite]
            if same and (np.abs(a - b) <= tolerance * (1 + np.abs(a).max(initial=0.0))).all():
                continue
        raise InputError(
            f"output {scores.name}: rows that run together get other scores than apart, so "
            "requests must not be merged: give --max-batch-size 0"
        )


def follows_batch(runner: GraphRunner, source: Source, name: str) -> bool:
    """Return whether an output has a row for each row of input."""
    for rows in (1, 3):
        feed = next(source.feeds(rows))
        result = _run(runner, feed, name)
        if result.ndim == 0 or len(result) != min(len(array) for array in feed.values()):
            return False
    return True


def _run(runner: GraphRunner, feed: Feed, output: str) -> Array:
    try:
        return runner(feed, [output])[output]
    except Exception as error:
        raise InputError(f"output {output}: the graph fails: {one_line(error)}") from None
