"""Near-duplicates: ask about the same image many times, a little different, and take the mean.

What a defence adds at random averages away; what it derives from the answer itself does not.
"""

import numpy as np

from exporters.training.datasets import Images
from load_tests.data.rows import features
from load_tests.stealing.attacks.base import span
from load_tests.stealing.attacks.sample import sample
from load_tests.stealing.collect import Plan
from load_tests.stealing.transfer_set import Queries, TransferSet

COPIES = 8
#: Standard deviation of the noise on each pixel in [0, 1].
PIXEL_NOISE = 0.02


def near_duplicates(
    pool: Images, *, budget: int, rng: np.random.Generator, copies: int = COPIES
) -> Plan:
    """Return a plan that asks about ``copies`` noisy copies of each of ``budget / copies`` images.

    Args:
        pool: the adversary's images, shape (n, height, width, channels), or features (n, F).
        budget: queries in all; the last image has fewer copies where it does not divide.
        rng: draws images and noise.
        copies: queries per image.
    """
    (drawn,) = sample(pool, budget=-(-budget // copies), rng=rng)
    images = features(drawn.rows).repeat(copies, axis=0)[:budget]
    noise = rng.normal(0, PIXEL_NOISE, images.shape).astype(np.float32)
    low, high = span(pool)
    yield Queries(np.clip(images + (high - low) * noise, low, high))


def average(transfer_set: TransferSet, *, copies: int = COPIES) -> TransferSet:
    """Return one row for each image: the mean of its copies and of their answers."""
    starts = np.arange(0, len(transfer_set), copies)
    counts = np.diff([*starts, len(transfer_set)])

    def mean(values: Images) -> Images:
        sums = np.add.reduceat(values.astype(np.float64), starts, axis=0)
        averaged: Images = (sums.T / counts).T.astype(np.float32)
        return averaged

    return TransferSet(mean(transfer_set.features), mean(transfer_set.scores))
