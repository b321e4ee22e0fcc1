"""Margin sampling (Scheffer et al., 2001; Pal et al., 2020): ask where the substitute wavers."""

import numpy as np

from exporters.training.train import BATCH
from load_tests.data.rows import Rows, features
from load_tests.stealing import probabilities
from load_tests.stealing.attacks.jacobian import RHO
from load_tests.stealing.attacks.sample import sample
from load_tests.stealing.collect import Plan
from load_tests.stealing.substitute import Recipe, train_substitute
from load_tests.stealing.transfer_set import Queries, TransferSet, joined

#: Share of the budget that is drawn at random; each round after it doubles the queries.
FIRST = 1 / 8
#: Of so many times as many rows as are asked about, at random, that the substitute wavers most on:
#: the very ones are too much alike.
SPREAD = 3


def margin(pool: Rows, *, budget: int, rng: np.random.Generator, recipe: Recipe) -> Plan:
    """Return a plan that asks about rows of the least lead of the first class over the second.

    Args:
        pool: what the adversary has, n rows; no labels.
        budget: rows to ask about, 1 to n.
        rng: draws the first rows, and among those that the substitute wavers on.
        recipe: how the substitutes between the rounds are trained, on labels; ``RHO`` epochs.

    Raises:
        InputError: the budget is not within 1 to n.
    """
    sample(pool, budget=budget, rng=rng)  # refuses the budget
    recipe = recipe.on_labels(seed=recipe.seed)

    def plan() -> Plan:
        left = rng.permutation(len(pool))
        chosen, left = np.split(left, [max(1, int(FIRST * budget))])
        known: TransferSet = yield Queries(pool[chosen], chosen)
        asked = len(chosen)
        while asked < budget:
            model = train_substitute(known, recipe.with_steps(RHO * -(-len(known) // BATCH)))
            told = probabilities.told(model, features(pool)[left])
            highest = np.partition(told, -2, axis=1)[:, -2:]
            count = min(asked, budget - asked)
            wavering = (highest[:, 1] - highest[:, 0]).argsort(kind="stable")[: SPREAD * count]
            places = rng.permutation(wavering)[:count]
            chosen, left = left[places], np.delete(left, places)
            answers = yield Queries(pool[chosen], chosen)
            known = joined([known, answers]) if len(answers) else known
            asked += count

    return plan()
