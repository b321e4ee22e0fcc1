"""What users of an endpoint have: rows to ask about, of a data set or of a query set."""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from exporters.training import datasets
from exporters.training.datasets import Labels
from load_tests.data import query_sets
from load_tests.data.rows import InputRows, Rows, features
from postprocess.errors import InputError

#: Of a query set without a test set, one row in so many is held out to judge by.
HELD_OUT_ONE_IN = 5


@dataclass(frozen=True)
class Drawn:
    """The rows of one data set."""

    pool: Rows  #: the adversary's
    test: Rows  #: of normal users, by which thieves are judged
    labels: Labels | None  #: the test rows' true classes, where they are known; see ``query_sets``
    flips: bool = False  #: see ``Dataset.flips``
    inputs: tuple[str, ...] = ()  #: what the model's inputs are called, where the rows say so

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what a thief learns from, without the rows."""
        return features(self.pool).shape[1:]


def digest(rows: Rows) -> str:
    """Return a hash of rows, by which they are known to be the same."""
    found = hashlib.blake2b(digest_size=16)
    more = rows.inputs.values() if isinstance(rows, InputRows) else ()
    for values in (features(rows), *more):
        found.update(f"{values.dtype} {values.shape}".encode())
        found.update(values.tobytes())
    return found.hexdigest()


@functools.lru_cache(maxsize=1)
def draw_from(
    data: str,
    data_dir: Path | None,
    split_seed: int,
    query_set: str = "",
    test_set: str = "",
    *,
    to_learn: bool = True,
) -> Drawn:
    """Return the rows of a data set, split as ``reverse-sigmoid export`` did, or of a query set.

    Args:
        data: name of a data set.
        data_dir: where it is.
        split_seed: of the split; without a test set also of a query set's.
        query_set: file of a query set that takes the data set's place; else empty.
        test_set: file of another one, to judge by.
        to_learn: see ``query_sets.read``.

    Raises:
        InputError: there is no such data set, or a file is no query set.
    """
    if query_set:
        files = Path(query_set), test_set and Path(test_set)
        return _of_files(*files, seed=split_seed, to_learn=to_learn)
    dataset = datasets.load(data, data_dir)
    pool = datasets.hold_off(dataset, seed=split_seed).adversary_images
    return Drawn(pool, dataset.x_test, dataset.y_test, dataset.flips)


def refuse_other_rows(data: str, query_set: str, test_set: str) -> None:
    """Refuse rows of two kinds, of none, or to judge by alone.

    Raises:
        InputError: see above.
    """
    if bool(data) == bool(query_set):
        raise InputError(
            "--data, --query-set: give one of them, a data set or a file of your own rows"
        )
    if test_set and not query_set:
        raise InputError("--test-set: goes with --query-set")


def _of_files(path: Path, test_path: Path | Literal[""], *, seed: int, to_learn: bool) -> Drawn:
    pool = query_sets.read(path, to_learn=to_learn)
    if test_path:
        test = query_sets.read(test_path, to_learn=to_learn)
        query_sets.refuse_unlike(pool, test, where=f"--test-set {test_path}")
    else:
        count = len(pool.rows)
        if count < HELD_OUT_ONE_IN:
            raise InputError(
                f"{path}: {count} rows are too few to hold one in {HELD_OUT_ONE_IN} out to judge "
                "by; --test-set FILE.npz names others"
            )
        held = np.zeros(count, bool)
        held[np.random.default_rng(seed).permutation(count)[: -(-count // HELD_OUT_ONE_IN)]] = True
        pool, test = pool[np.flatnonzero(~held)], pool[np.flatnonzero(held)]
    return Drawn(pool.rows, test.rows, test.labels, inputs=tuple(pool.inputs))
