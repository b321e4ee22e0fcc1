"""Which of several settings is chosen: section 4.2."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

#: The seed that chooses, of which nothing is told: the best of many on one seed is so by luck too.
PILOT = 0
#: The drop of the substitute's accuracy that a setting has to reach (section 4.2).
DROP = 0.20


@dataclass(frozen=True)
class Tried:
    """What a setting cost and what it stopped."""

    defence: dict[str, Any]
    cosine: float  #: of P and M
    accuracy: float  #: of S(P)


def stops_enough(undefended: float, accuracy: float) -> bool:
    """Return whether the accuracy of S(P) lies ``DROP`` below that of S(M), or more."""
    return undefended - accuracy >= DROP - 1e-9


def choose(candidates: Iterable[Tried], *, undefended: float) -> Tried:
    """Return the candidate of the highest cosine among those that stop enough of the theft.

    Section 4.2 asks for an accuracy drop of at least 20 percent in stealing, and does not say
    from where: here from S(M). Where none reaches it, the one with the largest drop.

    Args:
        candidates: at least one.
        undefended: the accuracy of S(M).
    """
    tried = list(candidates)
    enough = [one for one in tried if stops_enough(undefended, one.accuracy)]
    if enough:
        return max(enough, key=lambda one: one.cosine)
    return min(tried, key=lambda one: one.accuracy)
