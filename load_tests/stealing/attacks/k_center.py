"""K-center (Sener and Savarese, 2018; Pal et al., 2020): ask about rows far from all others."""

import numpy as np

from load_tests.data.rows import Rows, features
from load_tests.stealing.attacks.sample import sample
from load_tests.stealing.collect import Plan
from load_tests.stealing.transfer_set import Queries


def k_center(pool: Rows, *, budget: int, rng: np.random.Generator) -> Plan:
    """Return a plan that asks, one by one, about the row that is farthest from those before.

    So with fewer queries it is the beginning of the same. Distance is Euclidean, of features.

    Args:
        pool: what the adversary has, n rows; no labels.
        budget: rows to ask about, 1 to n.
        rng: draws the first of them.

    Raises:
        InputError: the budget is not within 1 to n.
    """
    sample(pool, budget=budget, rng=rng)  # refuses the budget

    def plan() -> Plan:
        rows = features(pool).reshape(len(pool), -1)
        lengths = np.square(rows).sum(axis=1)
        chosen = [int(rng.integers(len(pool)))]
        nearest = np.full(len(pool), np.inf, np.float32)
        while len(chosen) < budget:
            distance = lengths - 2 * (rows @ rows[chosen[-1]]) + lengths[chosen[-1]]
            nearest = np.minimum(nearest, distance)
            nearest[chosen] = -np.inf
            chosen.append(int(nearest.argmax()))
        drawn = np.array(chosen)
        yield Queries(pool[drawn], drawn)

    return plan()
