"""The Random attack of section 4: ask about noise."""

import numpy as np

from exporters.training.datasets import Images
from load_tests.stealing.attacks.base import span
from load_tests.stealing.collect import Plan
from load_tests.stealing.transfer_set import Queries

#: Images made at a time.
CHUNK = 4096


def random_images(pool: Images, *, budget: int, rng: np.random.Generator) -> Plan:
    """Return a plan that asks about ``budget`` images of uniform pixels, or features.

    The adversary knows the shape and the range of the input, and has no image of its kind.

    Args:
        pool: gives the shape, (n, height, width, channels) or (n, F), and the range of features;
            no image of it is used.
        budget: images to ask about.
        rng: draws the pixels, uniform in [0, 1].
    """
    low, high = span(pool)
    for start in range(0, budget, CHUNK):
        count = min(CHUNK, budget - start)
        yield Queries(low + (high - low) * rng.random((count, *pool.shape[1:]), np.float32))
