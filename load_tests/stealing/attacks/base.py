"""What an attack is, and what it has to work with."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from exporters.datasets import Images
from load_tests.stealing.collect import Plan
from load_tests.stealing.substitute import Recipe
from load_tests.stealing.transfer_set import TransferSet

#: The other data set that needs no download: crops of scikit-learn's two photographs.
PHOTOS = "photos"


@dataclass(frozen=True, kw_only=True)
class Means:
    """What an adversary attacks with; each attack takes what it can use."""

    pool: Images  #: the adversary's images, shape (n, height, width, channels); no labels
    budget: int  #: images to ask about
    rng: np.random.Generator  #: of the attack's draws
    recipe: Recipe = field(default_factory=Recipe)  #: of networks trained between its rounds
    real: int = 0  #: real images that it begins with, 0 for its own share
    others: str = PHOTOS  #: images of another kind: ``photos``, or a data set
    data_dir: Path | None = None  #: where that data set is


@dataclass(frozen=True)
class StealingAttack:
    """One way to spend a query budget."""

    #: Makes the questions from the first, see ``load_tests.stealing.collect``; raises InputError
    #: where the means do not suffice.
    plan: Callable[[Means], Plan]
    #: How many queries tell something new, of the adversary's images.
    limit: Callable[[Images], float] = lambda pool: math.inf
    #: Makes one row to learn from of several answers; its input is none that was asked about.
    average: Callable[[TransferSet], TransferSet] | None = None

    def digest(self, taken: TransferSet) -> TransferSet:
        """Return what of the answers is learnt from."""
        return taken if self.average is None else self.average(taken)
