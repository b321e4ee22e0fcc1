"""Jacobian augmentation (Papernot et al., 2016; section 4): make images where it matters."""

import math

import numpy as np

from exporters.training.datasets import Images
from exporters.training.train import BATCH
from load_tests.stealing.attacks.base import span
from load_tests.stealing.attacks.input_gradient import input_gradient
from load_tests.stealing.attacks.sample import sample
from load_tests.stealing.collect import Plan
from load_tests.stealing.substitute import Recipe, train_substitute
from load_tests.stealing.transfer_set import Queries, TransferSet, joined

#: How far each pixel moves, of a range of 1 (section 4: "lambda = 0.1").
LAMBDA = 0.1
#: Epochs that the substitute is trained for before each augmentation (section 4: "rho = 40").
RHO = 40
#: Share of the budget that is real images: section 4 has 3,000 of 50,000. Doubled four times
#: it is the whole budget, so that no substitute is trained for a small rest.
REAL_SHARE = 1 / 16
#: Fewest real images: a substitute cannot start from three of ten classes.
LEAST_REAL = 32


def jacobian(
    pool: Images,
    *,
    budget: int,
    rng: np.random.Generator,
    recipe: Recipe | None = None,
    real: int = 0,
) -> Plan:
    """Return a plan that asks about a few real images, and then about ones made from them.

    Round by round a substitute is trained from scratch on all answers so far, and every image
    it has seen is moved, pixel by pixel, by ``LAMBDA`` in the direction that raises the
    substitute's loss against the class that the endpoint named (the paper's words; Papernot et
    al. move along the gradient of that class's score). Each round doubles the queries.

    Args:
        pool: the adversary's real images, shape (n, height, width, channels), or features (n, F).
        budget: images to ask about, real and made together.
        rng: draws the real images, and the last round's share of the images.
        real: how many of them are real; 0 for a ``REAL_SHARE``.
        recipe: how the substitutes between the rounds are trained; the steps are ``RHO`` epochs.
    """
    recipe = recipe or Recipe()
    low, high = span(pool)
    real = min(real, budget, len(pool)) or real_images(budget, len(pool))
    (start,) = sample(pool, budget=real, rng=rng)
    known: TransferSet = yield start
    asked = real
    while asked < budget:
        steps = max(1, RHO * -(-len(known) // BATCH))
        model = train_substitute(known, recipe.with_steps(steps))
        count = min(budget - asked, len(known))
        chosen = rng.permutation(len(known))[:count]
        images = known.features[chosen]
        gradient = input_gradient(model, images, known.scores[chosen].argmax(axis=1))
        moved = np.clip(images + np.float32(LAMBDA) * (high - low) * np.sign(gradient), low, high)
        answers = yield Queries(moved)
        if len(answers):
            known = joined([known, answers])
        asked += count


def real_images(budget: int, pool: int) -> int:
    """Return how many of the budget's images are real; they are asked about first."""
    return min(budget, pool, max(LEAST_REAL, math.ceil(REAL_SHARE * budget)))
