"""What an attack was, beside its transfer set: all that is needed to read that, or to go on.

``attack.json`` stands in the folder of every transfer set, whether ``reverse-sigmoid attack`` or a
thief of Locust's left it, and holds the fields of ``AttackRecord``.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from load_tests.data.drawn import Drawn, digest, draw_from
from load_tests.stealing.attacks.base import PHOTOS, Means
from load_tests.stealing.attacks.registry import ATTACKS
from load_tests.stealing.claim import claim
from load_tests.stealing.claim import read as read_settings
from load_tests.stealing.collect import Plan
from load_tests.stealing.substitute import Recipe
from postprocess.errors import InputError

NAME = "attack.json"


@dataclass(frozen=True, kw_only=True)
class AttackRecord:
    """The contents of ``attack.json``."""

    attack: str  #: see ``attacks.registry``
    data: str  #: with the next two, gives the pool that ``pool:17`` of the transfer set is of
    data_dir: str | None
    split_seed: int
    seed: int  #: of the attack's draws
    queries: int  #: the budget, in rows
    url: str
    model: str
    architecture: str = "simple"  #: of networks trained between its rounds
    others: str = PHOTOS  #: the other data set of Knockoff
    query_set: str = ""  #: file of a query set, in the data set's place
    test_set: str = ""  #: see ``drawn``
    rows: str = ""  #: the hash of a query set's pool

    @classmethod
    def of(cls, settings: Any, data_dir: Path | None, **own: Any) -> "AttackRecord":
        """Return a record with values of its own; all others are settings of the same names."""
        shared = {one.name: getattr(settings, one.name) for one in fields(cls)
                  if one.name not in own and hasattr(settings, one.name)}  # fmt: skip
        place = None if data_dir is None else str(data_dir.resolve())
        return cls(**shared | {"data_dir": place} | own)

    @property
    def drawn(self) -> Drawn:
        """The rows of its data set or query set.

        Raises:
            InputError: they are there no more, or are others by now.
        """
        files = {"query_set": self.query_set, "test_set": self.test_set}
        found = draw_from(self.data, self._data_dir, self.split_seed, **files)
        if self.query_set and self.rows != digest(found.pool):
            raise InputError(f"{self.query_set}: holds other rows than those that were asked about")
        return found

    @property
    def _data_dir(self) -> Path | None:
        return None if self.data_dir is None else Path(self.data_dir)

    def plan(self) -> Plan:
        """Return the attack from its start.

        Raises:
            InputError: the budget is more than the pool, or there is no such attack.
        """
        means = Means(
            pool=self.drawn.pool,
            budget=self.queries,
            rng=np.random.default_rng(self.seed),
            recipe=Recipe(seed=self.seed, flips=self.drawn.flips, architecture=self.architecture),
            others=self.others,
            data_dir=self._data_dir,
        )
        return ATTACKS[self.attack].plan(means)

    def claim(self, folder: Path, *, ours: bool = False) -> None:
        """Write the record to a folder, or find it there; see ``load_tests.stealing.claim``."""
        claim(folder / NAME, self, where=str(folder), ours=ours)


def read(folder: Path) -> AttackRecord:
    """Return what a folder's attack was.

    Raises:
        InputError: the file is missing or is no record of an attack.
    """
    return read_settings(folder / NAME, AttackRecord)
