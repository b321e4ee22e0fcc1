"""The defences of section 4.2 beside Reverse Sigmoid."""

import numpy as np
import pytest
from scipy.special import softmax

from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

LOGITS = (np.random.default_rng(0).normal(size=(400, 10)) * 3).astype(np.float32)
Y = softmax(LOGITS.astype(np.float64), axis=1)
RANDOM = {
    "uniform": {},
    "uniform_concave": {"rho": 0.1},
    "uniform_convex": {"rho": 0.1},
}


def answers(defense, *, scores=LOGITS, **changes):
    values = {"scores": "logits", "beta": 0.3, "preserve_top1": False, **changes}
    return Postprocessor(Parameters(defense=defense, **values))(scores)


def normalised(z):
    z = np.maximum(z, 0)
    return z / z.sum(axis=1, keepdims=True)


def test_sine_is_its_formula():
    served = answers("sine", beta=0.05, frequency=20)
    assert np.abs(served - normalised(Y + 0.05 * np.sin(20 * Y))).max() <= 1e-6


def test_none_is_softmax():
    assert np.abs(answers("none", beta=None) - Y).max() <= 1e-6


def noise_of(served):
    """The noise of the rows that nothing was clipped in, up to the factor of their sum."""
    whole = (served > 0).all(axis=1)
    return served[whole], Y[whole]


@pytest.mark.parametrize("defense", RANDOM)
def test_noise_stays_within_its_envelope_and_fills_it(defense):
    rho = 0.1
    envelope = {
        "uniform": np.ones_like(Y),
        "uniform_concave": np.exp(-((Y / rho) ** 2) / 2),
        "uniform_convex": 1 - np.exp(-((Y / rho) ** 2) / 2),
    }[defense]
    beta = 0.002
    found = []
    for seed in range(20):
        served = answers(defense, beta=beta, seed=seed, **RANDOM[defense]).astype(np.float64)
        # yhat = (y + n) / (1 + sum n), and the sum is at most K * beta = 0.02.
        noise = served - Y
        keep = (served > 0).all(axis=1)
        found.append((np.abs(noise) / beta)[keep])
        bound = envelope[keep] + (1 + envelope[keep].sum(axis=1, keepdims=True)) * Y[keep]
        assert (found[-1] <= 1.03 * bound + 1e-3).all()
    small = (Y < 0.01)[keep]
    typical = np.median(found[-1][small]) if small.any() else np.nan
    assert typical < 0.01 if defense == "uniform_convex" else 0.2 < typical < 0.8


@pytest.mark.parametrize("defense", RANDOM)
def test_a_seed_repeats_the_noise_and_none_draws_it_anew(defense):
    options = RANDOM[defense]
    assert np.array_equal(answers(defense, seed=7, **options), answers(defense, seed=7, **options))
    assert not np.allclose(answers(defense, seed=7, **options), answers(defense, seed=8, **options))
    assert not np.allclose(answers(defense, **options), answers(defense, **options))


@pytest.mark.parametrize("defense", RANDOM)
def test_a_seed_does_not_draw_the_same_noise_for_every_batch(defense):
    defence = Postprocessor(
        Parameters(defense=defense, scores="logits", beta=0.3, seed=1, **RANDOM[defense])
    )
    assert not np.allclose(defence(LOGITS), defence(LOGITS))


@pytest.mark.parametrize("beta", [0.001, 0.3, 100])
@pytest.mark.parametrize(
    ("defense", "options"), [*RANDOM.items(), ("sine", {"frequency": 50}), ("none", {})]
)
def test_the_top_class_is_kept_unless_told_otherwise(defense, options, beta):
    ties = np.array([[1, 1, 0, -1], [0, 2, 2, 2], [0, 0, 0, 0]], np.float32)
    for scores in (LOGITS, ties):
        served = answers(defense, scores=scores, beta=beta, preserve_top1=True, **options)
        assert (served.argmax(axis=1) == scores.argmax(axis=1)).all()
        assert np.abs(served.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6
        assert (served >= 0).all()


def test_noise_larger_than_every_probability_still_gives_a_distribution():
    served = answers("uniform", beta=100, seed=0, scores=np.zeros((2000, 2), np.float32))
    assert np.isfinite(served).all()
    assert np.abs(served.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6
    assert (served == 0.5).all(axis=1).any()  # both negative: the uniform row
