"""What an attack is, and what it has to work with."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from exporters.training.datasets import Images
from load_tests.data.rows import InputRows, Rows
from load_tests.stealing.collect import Plan
from load_tests.stealing.substitute import Recipe
from load_tests.stealing.transfer_set import TransferSet
from postprocess.errors import InputError

#: The other data set that needs no download: crops of scikit-learn's two photographs.
PHOTOS = "photos"
#: Why an attack that makes rows of its own cannot.
NO_ARRAYS = (
    "makes rows of its own, which can be sent only where what is learnt from is the model's single "
    "input of floats"
)


@dataclass(frozen=True, kw_only=True)
class Means:
    """What an adversary attacks with; each attack takes what it can use."""

    pool: Rows  #: the adversary's rows; no labels
    budget: int  #: rows to ask about
    rng: np.random.Generator  #: of the attack's draws
    recipe: Recipe = field(default_factory=Recipe)  #: of networks trained between its rounds
    real: int = 0  #: real rows that it begins with, 0 for its own share
    others: str = PHOTOS  #: images of another kind: ``photos``, or a data set
    data_dir: Path | None = None  #: where that data set is

    @property
    def arrays(self) -> Images:
        """The pool of an attack that makes rows of its own.

        Raises:
            InputError: such rows cannot be sent.
        """
        if isinstance(self.pool, InputRows):
            raise InputError(NO_ARRAYS)
        return self.pool


def no_arrays(means: Means) -> str:
    """Return why an attack that makes rows of its own cannot, empty where it can."""
    return NO_ARRAYS if isinstance(means.pool, InputRows) else ""


def span(pool: Images) -> tuple[Any, Any]:
    """Return the least and the highest that a row may hold: 0 and 1 of images.

    Of features it is what the pool holds, each by itself.
    """
    if pool.ndim == 4:
        return np.float32(0), np.float32(1)
    return pool.min(axis=0), pool.max(axis=0)


@dataclass(frozen=True)
class StealingAttack:
    """One way to spend a query budget."""

    #: Makes the questions from the first, see ``load_tests.stealing.collect``; raises InputError
    #: where the means do not suffice.
    plan: Callable[[Means], Plan]
    #: Why it cannot be made with such means, empty where it can.
    hindrance: Callable[[Means], str] = lambda means: ""
    #: How many queries tell something new, of the adversary's rows.
    limit: Callable[[Rows], float] = lambda pool: math.inf
    #: Makes one row to learn from of several answers; its input is none that was asked about.
    average: Callable[[TransferSet], TransferSet] | None = None

    #: Whether it chooses among the adversary's rows, for thieves of labels too.
    chooses: bool = False

    def digest(self, taken: TransferSet) -> TransferSet:
        """Return what of the answers is learnt from."""
        return taken if self.average is None else self.average(taken)
