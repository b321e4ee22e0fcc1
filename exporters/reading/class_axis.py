"""Which axis of the scores holds the classes: read from the graph, or seen, never guessed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.reading.graph_ending import Ending
from postprocess.errors import InputError
from postprocess.scores import PROBABILITY_EXCESS, PROBABILITY_ROUNDING, sum_tolerance

#: The convention, which every sign must agree with: anything else has to be said.
LAST = -1


@dataclass(frozen=True)
class Signs:
    """What tells the axis of a tensor of scores."""

    shape: tuple[int, ...]  #: as it was seen
    free: tuple[bool, ...]  #: which sizes each request chooses
    batched: bool  #: the first axis is the batch, whether Triton merges requests or not
    end: Ending | None
    argmax: frozenset[int]  #: axes, from 0 on, over which the graph takes the highest
    sums: frozenset[int]  #: axes along which the scores seen are in [0, 1] and sum to 1

    @property
    def last(self) -> int:
        return len(self.shape) - 1

    @property
    def said(self) -> tuple[str, frozenset[int]]:
        """What says most, and the axes that it says; "" if nothing does."""
        if self.end is not None and self.end.axis is not None and self.end.op != "Sigmoid":
            return f"the graph's {self.end.op} is over", frozenset([self.end.axis])
        if self.sums:
            return "the scores sum to 1 along", self.sums
        if self.argmax:
            return "the graph's ArgMax is over", self.argmax
        return "", frozenset()

    def candidates(self) -> list[int]:
        """Return the axes that could hold classes."""
        axes = range(1 if self.batched or self.last == 1 else 0, len(self.shape))
        there = {one for one in axes if self.shape[one] > 1 or self.free[one]}
        return sorted(there | {self.last} | self.said[1])


def sums_to_one(scores: list[NDArray[np.floating[Any]]], *, rounded: bool) -> frozenset[int]:
    """Return the axes along which every tensor holds probabilities that sum to 1.

    Args:
        scores: tensors of one rank; what is not finite in them is passed over.
        rounded: they are quantised, so that a sum may be off by a step for each class.
    """
    return frozenset(
        axis
        for axis in range(scores[0].ndim)
        if max(one.shape[axis] for one in scores) > 1
        and all(_sums_along(one, axis, rounded=rounded) for one in scores)
    )


def _sums_along(scores: NDArray[np.floating[Any]], axis: int, *, rounded: bool) -> bool:
    with np.errstate(invalid="ignore", over="ignore"):
        totals = scores.sum(axis=axis, dtype=np.float64)
    finite = scores[np.isfinite(scores)]
    tolerance = sum_tolerance(scores.shape[axis] if rounded else 1)
    within = (finite >= -PROBABILITY_ROUNDING) & (finite <= 1 + PROBABILITY_EXCESS)
    near = np.abs(totals[np.isfinite(totals)] - 1) <= tolerance
    return bool(len(near) and within.all() and near.all())


def find(signs: Signs, asked: int | None, *, multi_label: bool | None) -> int:
    """Return the axis of the classes: -1 for the last, else counted from 0.

    Args:
        signs: what tells it.
        asked: as a person says it, None if nobody does.
        multi_label: every score is a yes or no of its own, so that no axis matters; None if nobody
            says so, and a Sigmoid at the end does.

    Raises:
        InputError: it is not clear, or what was asked is not what the graph shows.
    """
    rank, end = len(signs.shape), signs.end
    alone = multi_label is True or (end is not None and end.op == "Sigmoid" and multi_label is None)
    if signs.end is not None and signs.end.op.endswith("Softmax") and signs.end.axis is None:
        raise InputError(
            f"ends in a {signs.end.op} over several axes at once, so that none holds the classes; "
            "export it with a Softmax over one axis (opset 13 or newer)"
        )
    why, axes = signs.said
    if asked is not None:
        axis = _asked(asked, signs)
        if axes and axis not in axes:
            right = min(axes)
            raise InputError(
                f"--class-axis {asked}: {why} {_axis(signs, right)}; give --class-axis {right}"
            )
        return LAST if axis == rank - 1 else axis
    candidates = signs.candidates()
    fixed = [one for one in candidates if not signs.free[one] and signs.shape[one] > 1]
    clear = (
        alone
        or axes == {signs.last}
        or (not axes and (candidates == [signs.last] or fixed == [signs.last]))
    )
    if clear:
        return LAST
    readings = [_axis(signs, one) for one in candidates]
    said = f"; {why} {_axis(signs, min(axes))}" if len(axes) == 1 else ""
    example = min(axes) if axes else candidates[0]
    raise InputError(
        f"which axis holds the classes is not clear: {', '.join(readings[:-1])} or "
        f"{readings[-1]}{said}; say it, for example --class-axis {example}"
    )


def _asked(asked: int, signs: Signs) -> int:
    rank = len(signs.shape)
    if not -rank <= asked < rank:
        raise InputError(
            f"--class-axis {asked}: the scores have {rank} axes, {-rank} to {rank - 1}"
        )
    axis = asked % rank
    if axis == 0 and signs.batched and rank > 1:
        raise InputError(
            f"--class-axis {asked}: axis 0 is the batch; expected one of "
            f"{', '.join(map(str, signs.candidates()))}"
        )
    return axis


def _axis(signs: Signs, axis: int) -> str:
    size = "any size" if signs.free[axis] else f"size {signs.shape[axis]}"
    return f"axis {axis} of {size}"
