import numpy as np
import pytest

from load_tests.stealing.attacks.sample import sample
from load_tests.stealing.collect import collect
from postprocess.errors import InputError

IMAGES = np.arange(50, dtype=np.float32).reshape(50, 1, 1, 1)


def victim(images):
    return np.stack([images.reshape(-1), -images.reshape(-1)], axis=1)


def test_exactly_the_budget_is_asked_and_nothing_twice():
    taken = collect(sample(IMAGES, budget=33, rng=np.random.default_rng(0)), victim)
    assert len(set(taken.rows.reshape(-1))) == 33
    assert np.array_equal(taken.scores[:, 0], taken.rows.reshape(-1))


@pytest.mark.parametrize("budget", [0, -1, 51])
def test_a_budget_that_cannot_be_spent_is_refused(budget):
    with pytest.raises(InputError, match=f"query budget: expected 1 to 50 rows, got {budget}"):
        sample(IMAGES, budget=budget, rng=np.random.default_rng(0))
