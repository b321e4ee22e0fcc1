"""The plan of an attack, by its name."""

import numpy as np

from exporters.datasets import Images
from load_tests.stealing.attacks.jacobian import jacobian
from load_tests.stealing.attacks.knockoff import Others, knockoff
from load_tests.stealing.attacks.near_duplicates import near_duplicates
from load_tests.stealing.attacks.random_images import random_images
from load_tests.stealing.attacks.sample import sample
from load_tests.stealing.collect import Plan
from load_tests.stealing.substitute import Recipe
from postprocess.errors import InputError


def plan(
    attack: str,
    pool: Images,
    *,
    budget: int,
    rng: np.random.Generator,
    recipe: Recipe,
    others: Others | None = None,
    real: int = 0,
) -> Plan:
    """Return an attack's plan from its start.

    Args:
        attack: one of ``thief.ATTACKS``.
        pool: the adversary's images, shape (n, height, width, channels).
        budget: images to ask about.
        rng: of the attack's draws.
        recipe: how substitutes are trained between the rounds of an attack that does.
        others: the other data set of Knockoff.
        real: real images that Jacobian begins with, 0 for its own share.

    Raises:
        InputError: there is no such attack, or its budget is more than the pool.
    """
    if attack == "sample":
        return sample(pool, budget=budget, rng=rng)
    if attack == "random":
        return random_images(pool, budget=budget, rng=rng)
    if attack == "jacobian":
        return jacobian(pool, budget=budget, rng=rng, recipe=recipe, real=real)
    if attack == "knockoff":
        return knockoff(pool, budget=budget, rng=rng, others=others or Others())
    if attack == "duplicates":
        return near_duplicates(pool, budget=budget, rng=rng)
    raise InputError(f"unknown attack {attack!r}")
