"""Percentiles, throughput and their ratios over rounds, with bootstrap confidence intervals.

Requests of one slice share its disturbances and are not independent; rounds are taken to be.
So rounds are drawn, with replacement, and with a round come all its requests. For a ratio both
models' slices of a round are drawn together, because they shared that moment of the machine.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from load_tests.timing.closed_loop import Slice

PERCENTILES = (50, 95, 99)
MEASURES = (
    *(f"latency_p{percentile}_ms" for percentile in PERCENTILES),
    "requests_per_second",
    "rows_per_second",
)
RESAMPLES = 2000
CONFIDENCE = 0.95
Floats = NDArray[np.float64]
Counts = NDArray[np.integer[Any]]


class Rounds:
    """One model's slices, one for each round, all of its requests sorted once."""

    def __init__(self, slices: Sequence[Slice], *, rows: int) -> None:
        """Take the slices and the rows of each request."""
        latencies = np.concatenate([one.latencies_ms for one in slices])
        rounds = np.repeat(np.arange(len(slices)), [len(one.latencies_ms) for one in slices])
        order = latencies.argsort()
        self._latencies_ms, self._rounds = latencies[order], rounds[order]
        self._answered = np.array([len(one.latencies_ms) for one in slices])
        self._seconds = np.array([one.seconds for one in slices])
        self._rows = rows
        self.errors = sum(one.errors for one in slices)
        self.error = next((one.error for one in slices if one.error), "")

    def __len__(self) -> int:
        return len(self._seconds)

    @property
    def requests(self) -> int:
        """The number of requests that were answered."""
        return len(self._latencies_ms)

    def measures(self, times: Counts | None = None) -> Floats:
        """Return the ``MEASURES``, with round i taken ``times[i]`` times, by default once.

        Percentiles are those of all requests of these rounds together, interpolated as NumPy
        does. Where no request was answered, latencies are NaN.
        """
        if times is None:
            times = np.ones(len(self), int)
        per_second = (times * self._answered).sum() / (times * self._seconds).sum()
        up_to = np.cumsum(times[self._rounds])
        last = (up_to[-1] if len(up_to) else 0) - 1
        if last < 0:
            return np.array([np.nan] * len(PERCENTILES) + [0.0, 0.0])
        place = last * np.array(PERCENTILES) / 100
        below, above = (
            self._latencies_ms[np.searchsorted(up_to, rank, side="right")]
            for rank in (np.floor(place), np.ceil(place))
        )
        latencies_ms = below + (above - below) * (place % 1)
        return np.array([*latencies_ms, per_second, per_second * self._rows])


def summary(rounds: Rounds) -> dict[str, float | int | None]:
    """Return the ``MEASURES`` by name, and how many requests were answered or failed."""
    values = [_number(value) for value in rounds.measures()]
    return {
        **dict(zip(MEASURES, values, strict=True)),
        "requests": rounds.requests,
        "errors": rounds.errors,
    }


def ratios(
    above: Rounds, below: Rounds, *, rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, dict[str, float | None]]:
    """Return the ratio above/below of each of the ``MEASURES``: value, low, high.

    low and high bound the middle 95 percent of the ratios over ``resamples`` draws of rounds.

    Args:
        above, below: two models' rounds, as many of each; round i of both ran side by side.
        rng: draws the rounds.
        resamples: how many draws.
    """
    count = len(above)
    drawn = [
        np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(resamples)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        values = above.measures() / below.measures()
        spread = np.array([above.measures(one) / below.measures(one) for one in drawn])
    tail = (1 - CONFIDENCE) / 2
    found = {}
    for index, name in enumerate(MEASURES):
        finite = spread[np.isfinite(spread[:, index]), index]
        low, high = np.quantile(finite, (tail, 1 - tail)) if len(finite) else (np.nan, np.nan)
        found[name] = {
            "value": _number(values[index]),
            "low": _number(low),
            "high": _number(high),
        }
    return found


def _number(value: Any) -> float | None:
    """A number for JSON, which knows no NaN and no infinity."""
    return float(value) if np.isfinite(value) else None
