import numpy as np
import pytest

from exporters.training import datasets
from load_tests.stealing.attacks.jacobian import LAMBDA, jacobian
from load_tests.stealing.attacks.knockoff import Others, knockoff
from load_tests.stealing.attacks.near_duplicates import average, near_duplicates
from load_tests.stealing.attacks.random_images import random_images
from load_tests.stealing.collect import collect
from load_tests.stealing.substitute import Recipe
from load_tests.stealing.transfer_set import TransferSet

POOL = datasets.load("digits").x_train[:300]


def victim(images):
    """Probabilities that follow from where the ink is."""
    ink = images.reshape(len(images), 8, 8).sum(axis=2)[:, :4] + 0.1
    return (ink / ink.sum(axis=1, keepdims=True)).astype(np.float32)


def rng():
    return np.random.default_rng(3)


@pytest.mark.slow
@pytest.mark.parametrize("budget", [1, 37, 130])
@pytest.mark.parametrize("attack", [random_images, near_duplicates, jacobian])
def test_exactly_the_budget_is_asked_within_the_range_of_pixels(attack, budget):
    taken = collect(attack(POOL, budget=budget, rng=rng()), victim)
    assert taken.rows.shape == (budget, 8, 8, 1)
    assert taken.rows.dtype == np.float32
    assert 0 <= taken.rows.min() < taken.rows.max() <= 1
    again = collect(attack(POOL, budget=budget, rng=rng()), victim)
    assert np.array_equal(taken.rows[:32], again.rows[:32])


def test_random_pixels_are_uniform():
    images = collect(random_images(POOL, budget=5000, rng=rng()), victim).rows
    shares, _ = np.histogram(images, bins=10, range=(0, 1))
    assert np.abs(shares / images.size - 0.1).max() < 0.005


@pytest.mark.slow
def test_jacobian_moves_known_images_by_lambda_where_the_loss_rises():
    taken = collect(jacobian(POOL, budget=100, rng=rng(), recipe=Recipe(seed=1)), victim)
    real, made = taken.rows[:32], taken.rows[32:64]
    assert {tuple(image.ravel()) for image in real} <= {tuple(image.ravel()) for image in POOL}
    # Each made image is one of the real ones, each pixel moved by lambda or to the range's end.
    for image in made:
        distance = np.abs(real - image).max(axis=(1, 2, 3))
        assert distance.min() == pytest.approx(LAMBDA, abs=1e-6)
    assert len(np.unique(made.reshape(32, -1), axis=0)) == 32


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3)])
def test_knockoff_takes_images_of_another_kind_into_the_victims_shape(shape):
    images = Others().draw(20, rng(), shape)
    assert images.shape == (20, *shape)
    assert 0 <= images.min() < images.max() <= 1
    digits = Others("digits").draw(1500, rng(), shape)  # more than there are
    assert digits.shape == (1500, *shape)


def test_knockoff_asks_about_the_other_images_only():
    def four(images):
        return np.full((len(images), 4), 0.25, np.float32)

    pool = np.zeros((1, 8, 8, 1), np.float32)
    taken = collect(knockoff(pool, budget=10, rng=rng(), others=Others("digits")), four)
    known = {tuple(image.ravel()) for image in datasets.load("digits").x_train}
    assert {tuple(image.ravel()) for image in taken.rows} <= known


def test_near_duplicates_are_averaged_per_image():
    images = np.arange(7, dtype=np.float32).reshape(7, 1, 1, 1)
    scores = np.stack([np.arange(7), 10 - np.arange(7)], axis=1).astype(np.float32)
    mean = average(TransferSet(images, scores), copies=3)
    assert mean.rows.ravel().tolist() == [1, 4, 6]  # the last image has but one copy
    assert mean.scores.tolist() == [[1, 9], [4, 6], [6, 4]]


def test_near_duplicates_differ_a_little_from_one_image():
    images = collect(near_duplicates(POOL, budget=80, rng=rng(), copies=8), victim).rows
    groups = images.reshape(10, 8, 64)
    within = np.abs(groups - groups[:, :1]).mean()
    between = np.abs(groups[1:, 0] - groups[:-1, 0]).mean()
    assert 0 < within < between / 5
