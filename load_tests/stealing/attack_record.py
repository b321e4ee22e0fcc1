"""What an attack was, beside its transfer set: all that is needed to read that, or to go on.

``attack.json`` holds ``attack`` (its name), ``data``, ``data_dir`` and ``split_seed`` (which give
the pool that the transfer set's ``pool:17`` refers to), ``seed`` (of the draws), ``queries`` (the
budget, in images), ``url`` and ``model``.
"""

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from exporters import datasets
from exporters.atomic_file import write_text
from exporters.datasets import Images
from load_tests.stealing import transfer_set_file
from load_tests.stealing.attacks.plans import plan
from load_tests.stealing.collect import Plan
from load_tests.stealing.substitute import Recipe
from postprocess.errors import InputError

NAME = "attack.json"


@dataclass(frozen=True)
class Drawn:
    """What users of an endpoint have: pictures to ask about."""

    test_images: Images  #: of normal users, shape (n, height, width, channels)
    pool: Images  #: the adversary's share of the training set, of that shape
    flips: bool  #: see ``Dataset.flips``


@functools.lru_cache(maxsize=1)
def draw_from(data: str, data_dir: Path | None, split_seed: int) -> Drawn:
    """Return a data set's images, split as ``reverse-sigmoid export`` did with that seed.

    Raises:
        InputError: there is no such data set.
    """
    dataset = datasets.load(data, data_dir)
    pool = datasets.hold_off(dataset, seed=split_seed).adversary_images
    return Drawn(dataset.x_test, pool, dataset.flips)


@dataclass(frozen=True, kw_only=True)
class AttackRecord:
    """The contents of ``attack.json``."""

    attack: str  #: sample, random or jacobian
    data: str
    data_dir: str | None
    split_seed: int
    seed: int
    queries: int
    url: str
    model: str

    @property
    def drawn(self) -> Drawn:
        """The images of its data set."""
        data_dir = None if self.data_dir is None else Path(self.data_dir)
        return draw_from(self.data, data_dir, self.split_seed)

    def plan(self) -> Plan:
        """Return the attack from its start.

        Raises:
            InputError: the budget is more than the pool, or there is no such attack.
        """
        return plan(
            self.attack,
            self.drawn.pool,
            budget=self.queries,
            rng=np.random.default_rng(self.seed),
            recipe=Recipe(seed=self.seed, flips=self.drawn.flips),
        )

    def claim(self, folder: Path) -> None:
        """Write the record to a folder, or find it there from an earlier run.

        Raises:
            InputError: the folder is another attack's, or cannot be written.
        """
        path = folder / NAME
        try:
            if not path.is_file() and not (folder / transfer_set_file.NAME).exists():
                write_text(path, json.dumps(asdict(self), indent=2) + "\n")
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        known = read(folder)
        for name, value in asdict(self).items():
            if getattr(known, name) != value:
                raise InputError(
                    f"{folder} holds an attack with {name} {getattr(known, name)}, now {value}: "
                    "put this one into another folder, or that one out of the way"
                )


def read(folder: Path) -> AttackRecord:
    """Return what a folder's attack was.

    Raises:
        InputError: the file is missing or is no record of an attack.
    """
    path = folder / NAME
    try:
        return AttackRecord(**json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise InputError(f"{path}: expected the record of an attack") from None
