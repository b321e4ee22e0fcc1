"""The attacks by name, in the order in which they are told."""

from exporters.registry import Registry
from load_tests.stealing.attacks.base import PHOTOS, Means, StealingAttack, no_arrays
from load_tests.stealing.attacks.jacobian import jacobian
from load_tests.stealing.attacks.k_center import k_center
from load_tests.stealing.attacks.knockoff import Others, knockoff
from load_tests.stealing.attacks.margin import margin
from load_tests.stealing.attacks.near_duplicates import COPIES, average, near_duplicates
from load_tests.stealing.attacks.random_images import random_images
from load_tests.stealing.attacks.sample import sample
from load_tests.stealing.collect import Plan


def _jacobian(m: Means) -> Plan:
    return jacobian(m.arrays, budget=m.budget, rng=m.rng, recipe=m.recipe, real=m.real)


def _knockoff(m: Means) -> Plan:
    return knockoff(m.arrays, budget=m.budget, rng=m.rng, others=Others(m.others, m.data_dir))


def _no_photos(means: Means) -> str:
    if not (why := no_arrays(means)) and means.others == PHOTOS and means.arrays.ndim != 4:
        why = "asks about photographs, which are no features; --others names a data set of features"
    return why


ATTACKS = Registry(
    "attack",
    {
        "sample": StealingAttack(lambda m: sample(m.pool, budget=m.budget, rng=m.rng), limit=len),
        "random": StealingAttack(
            lambda m: random_images(m.arrays, budget=m.budget, rng=m.rng), no_arrays
        ),
        "jacobian": StealingAttack(_jacobian, no_arrays),
        "knockoff": StealingAttack(_knockoff, _no_photos),
        "duplicates": StealingAttack(
            lambda m: near_duplicates(m.arrays, budget=m.budget, rng=m.rng),
            no_arrays,
            limit=lambda pool: COPIES * len(pool),
            average=average,
        ),
        "margin": StealingAttack(
            lambda m: margin(m.pool, budget=m.budget, rng=m.rng, recipe=m.recipe),
            limit=len,
            chooses=True,
        ),
        "k_center": StealingAttack(
            lambda m: k_center(m.pool, budget=m.budget, rng=m.rng), limit=len, chooses=True
        ),
    },
    also=["all"],
)
