"""The Sample attack of section 4: ask about real images of the victim's kind."""

import numpy as np

from exporters.datasets import Images
from load_tests.endpoint import Query, ask
from load_tests.transfer_set import TransferSet
from postprocess.errors import InputError


def sample(
    query: Query,
    images: Images,
    *,
    budget: int,
    rng: np.random.Generator,
    batch_size: int = 64,
) -> TransferSet:
    """Return the answers to ``budget`` images drawn at random, none of them asked twice.

    Args:
        query: the endpoint under attack.
        images: what the adversary has, shape (n, height, width, channels); no labels.
        budget: images to ask about, 1 to n.
        rng: draws them.
        batch_size: images per request.

    Raises:
        InputError: the budget is not within 1 to n.
    """
    if not 1 <= budget <= len(images):
        raise InputError(f"query budget: expected 1 to {len(images)} images, got {budget}")
    drawn = images[rng.permutation(len(images))[:budget]]
    return TransferSet(drawn, ask(query, drawn, batch_size=batch_size))
