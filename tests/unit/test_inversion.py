"""Equation 2 inverted twice: by our thief, and by a derivation that shares no code with it."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from load_tests.stealing.recovery import analytic, mixture
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

BETA, GAMMA = 0.9, 0.2
PLAIN = Parameters(scores="probabilities", beta=BETA, gamma=GAMMA, preserve_top1=False)
#: Probabilities by their log-odds, and equation 2 of each before rows are normalised.
ODDS = np.linspace(-25, 25, 400_001)
Z = expit(ODDS) - BETA * (expit(GAMMA * ODDS) - 0.5)


def stretches():
    """Where the curve only falls or only rises: each has an inverse of its own."""
    turns = np.flatnonzero(np.diff(np.sign(np.diff(Z)))) + 1
    return [slice(a, b) for a, b in zip([0, *turns], [*turns, len(Z)], strict=True)]


def inverse(stretch, wanted):
    """Return the probability that equation 2 takes to a number, NaN where none does."""
    x, y = Z[stretch], ODDS[stretch]
    order = np.argsort(x)
    return expit(np.interp(wanted, x[order], y[order], left=np.nan, right=np.nan))


def solutions(answer):
    """Return all rows of probabilities that equation 2 takes to an answer.

    Were alpha known, each class would be solved by itself, once in each stretch of the curve. So
    alpha is looked for: with a stretch chosen for each class, where the probabilities sum to 1.
    """
    alphas = np.geomspace(0.05, 20, 200_000)
    each = np.array([[inverse(stretch, one / alphas) for stretch in stretches()] for one in answer])
    found = []
    for choice in np.ndindex(*(each.shape[1],) * len(answer)):
        rows = each[np.arange(len(answer)), choice]
        off = rows.sum(axis=0) - 1
        at = np.flatnonzero(off[:-1] * off[1:] <= 0)
        share = off[at] / (off[at] - off[at + 1])
        found += list((rows[:, at] * (1 - share) + rows[:, at + 1] * share).T)
    return np.array(found)


@pytest.mark.parametrize("seed", range(6))
def test_every_solution_of_the_thief_is_one_of_another_derivation(seed):
    true = softmax(np.random.default_rng(seed).normal(size=3) * 4)
    answer = Postprocessor(PLAIN)(true[None].astype(np.float32)).astype(np.float64)[0]
    expected = solutions(answer)
    assert np.abs(expected - true).max(axis=1).min() < 1e-3  # the truth is among them
    found, distance = analytic.solutions(answer[None], PLAIN)
    exact = np.exp(found[distance[:, 0] < analytic.EXACT, 0])
    assert len(exact)
    for one in exact:
        assert np.abs(expected - one).max(axis=1).min() < 1e-3
    surest = analytic.recover(answer[None], PLAIN)[0]
    assert surest.max() == pytest.approx(exact.max(), abs=1e-6)
    # A mean of logarithms lies within their range, before it is made to sum to 1.
    mean = mixture.recover(answer[None], PLAIN)[0]
    assert exact.max(axis=1).min() - 1e-6 <= mean.max() <= exact.max() + 0.05


def test_a_mixture_of_one_solution_is_that_solution():
    sure = Parameters(scores="probabilities", beta=0.1, gamma=0.9)  # answers tell all
    true = softmax(np.random.default_rng(0).normal(size=(20, 5)), axis=1).astype(np.float32)
    answers = Postprocessor(sure)(true)
    assert np.abs(mixture.recover(answers, sure) - true).max() < 1e-3
    assert np.abs(analytic.recover(answers, sure) - true).max() < 1e-3


@pytest.mark.parametrize("preserve_top1", [True, False])
@pytest.mark.parametrize(("beta", "gamma"), [(1.5, 0.2), (0.9, 0.2), (2, 1.2)])
def test_derivatives_are_those_that_differences_give(beta, gamma, preserve_top1):
    parameters = Parameters(
        scores="probabilities", beta=beta, gamma=gamma, preserve_top1=preserve_top1
    )
    logits, h = np.random.default_rng(0).normal(size=(50, 9)) * 4, 1e-6
    ahead, behind = (
        [analytic.protect(logits + way * unit, parameters) for unit in np.eye(9)] for way in (h, -h)
    )
    expected = np.stack([(a - b) / (2 * h) for a, b in zip(ahead, behind, strict=True)], axis=2)
    jacobian = analytic.Forward.of(logits, parameters).jacobian()
    assert jacobian.dense() == pytest.approx(expected, abs=1e-8)
    residual, damping = np.random.default_rng(1).normal(size=(50, 9)), np.full(50, 1e-3)
    dense = jacobian.dense()
    normal = dense.transpose(0, 2, 1) @ dense
    scale = np.trace(normal, axis1=1, axis2=2) / 9
    damped = normal + (damping * scale)[:, None, None] * np.eye(9)
    wanted = np.linalg.solve(damped, dense.transpose(0, 2, 1) @ residual[:, :, None])[:, :, 0]
    assert jacobian.step(residual, damping) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_answers_seen_before_are_not_solved_again(monkeypatch):
    answers = Postprocessor(PLAIN)(softmax(np.eye(4, 3, dtype=np.float32) * 3, axis=1))
    first = analytic.recover(answers, PLAIN)
    monkeypatch.setattr(analytic, "_solutions", None)
    assert np.array_equal(analytic.recover(answers[2:], PLAIN), first[2:])
