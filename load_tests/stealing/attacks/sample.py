"""The Sample attack of section 4: ask about real rows, such as images, of the victim's kind."""

import numpy as np

from load_tests.data.rows import Rows
from load_tests.stealing.collect import Plan
from load_tests.stealing.transfer_set import Queries
from postprocess.errors import InputError


def sample(pool: Rows, *, budget: int, rng: np.random.Generator) -> Plan:
    """Return a plan that asks about ``budget`` rows drawn at random, none of them twice.

    Args:
        pool: what the adversary has, n rows; no labels.
        budget: rows to ask about, 1 to n.
        rng: draws them.

    Raises:
        InputError: the budget is not within 1 to n.
    """
    if not 1 <= budget <= len(pool):
        raise InputError(f"query budget: expected 1 to {len(pool)} rows, got {budget}")

    def plan() -> Plan:
        drawn = rng.permutation(len(pool))[:budget]
        yield Queries(pool[drawn], drawn)

    return plan()
