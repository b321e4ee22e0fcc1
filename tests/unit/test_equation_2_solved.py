"""Equation 2 solved, against a derivation of its own.

Without the accuracy constraint an answer is z(y) of each class by itself, over the sum of all. So
for a given sum each class has at most three roots, one on each branch of z, and the sum is where
the roots add up to 1. Every choice of branches is tried on a grid, with nothing of the code under
test.
"""

import itertools

import numpy as np
import pytest
from scipy.special import logit, softmax

from load_tests.stealing.recovery import analytic, mixture
from postprocess.parameters import Parameters

CLASSES, ROWS = 4, 20
SETTINGS = [(0.9, 0.2), (0.5, 0.4), (1.5, 0.2)]
#: Log-probabilities that differ by less are of one solution.
SAME = 0.02
#: Of the logits of the curve's turns, where two solutions become one and a grid sees neither.
APART = 0.2


def z(y, beta, gamma):
    odds = (y / (1 - y)) ** gamma
    return y - beta * (odds / (1 + odds) - 0.5)


def branches(beta, gamma):
    """Return y and z of each part of the curve in which z only falls, or only rises."""
    y = 1 / (1 + np.exp(-np.linspace(-40, 30, 100_001)))
    values = z(y, beta, gamma)
    turns = np.flatnonzero(np.diff(np.diff(values) > 0)) + 1
    return [(y[low:high], values[low:high]) for low, high in itertools.pairwise([0, *turns, -1])]


def roots(wanted, part):
    """Return the y of values of z on one branch, NaN where it has none."""
    y, values = part if part[1][0] < part[1][-1] else (part[0][::-1], part[1][::-1])
    return np.interp(wanted, values, y, left=np.nan, right=np.nan)


def solved(answer, beta, gamma):
    """Return every y, shape (solutions, K), that equation 2 makes this answer of."""
    sums = np.linspace(0.2, 4, 10_001)
    parts = branches(beta, gamma)
    by_branch = [[roots(value * sums, part) for part in parts] for value in answer]
    found = []
    for choice in itertools.product(range(len(parts)), repeat=len(answer)):
        y = np.stack([by_branch[j][branch] for j, branch in enumerate(choice)])
        off = y.sum(axis=0) - 1
        for at in np.flatnonzero(off[:-1] * off[1:] <= 0):
            share = off[at] / (off[at] - off[at + 1])
            found.append(y[:, at] + share * (y[:, at + 1] - y[:, at]))
    return np.array(found)


def near(one, others):
    """Return whether probabilities are among others."""
    if not len(others):
        return False
    return bool((np.abs(np.log(others) - np.log(one)).max(axis=1) < SAME).any())


def clear(true, answers, parts):
    """Return which rows lie apart from the turns, and keep their top class."""
    turns = np.array([y[-1] for y, _ in parts[:-1]])
    apart = np.abs(logit(true)[:, :, None] - logit(turns)).min(axis=(1, 2)) > APART
    return apart & (answers.argmax(axis=1) == true.argmax(axis=1))


@pytest.fixture(scope="module", params=SETTINGS, ids=str)
def asked(request):
    """What a victim said, what was answered, and all solutions of each row."""
    beta, gamma = request.param
    true = softmax(np.random.default_rng(7).normal(size=(10 * ROWS, CLASSES)) * 2.5, axis=1)
    served = z(true, beta, gamma)
    answers = served / served.sum(axis=1, keepdims=True)
    rows = np.flatnonzero(clear(true, answers, branches(beta, gamma)))[:ROWS]
    assert len(rows) == ROWS
    every = [solved(row, beta, gamma) for row in answers[rows]]
    return beta, gamma, true[rows], answers[rows], every


def thief(asked):
    """Return the parameters that the thief knows, and what it takes for solutions."""
    beta, gamma, _, answers, _ = asked
    parameters = Parameters(scores="probabilities", beta=beta, gamma=gamma, preserve_top1=False)
    found, distance = analytic.solutions(answers, parameters)
    exact = [softmax(found[distance[:, at] < analytic.EXACT, at], axis=1) for at in range(ROWS)]
    return parameters, exact


def test_what_the_victim_said_is_among_all_solutions_and_seldom_the_only_one(asked):
    _, _, true, _, every = asked
    assert all(near(row, found) for row, found in zip(true, every, strict=True))
    assert np.mean([len(found) for found in every]) > 2


def test_what_the_thief_takes_for_a_solution_is_one(asked):
    beta, gamma, _, answers, _ = asked
    _, ours = thief(asked)
    assert sum(map(len, ours)) > ROWS
    for found, answer in zip(ours, answers, strict=True):
        for row in found:
            served = z(row, beta, gamma)
            assert served / served.sum() == pytest.approx(answer, abs=1e-6)


def test_what_the_victim_said_is_among_them_at_least_every_other_time(asked):
    _, _, true, _, _ = asked
    _, ours = thief(asked)
    found = [near(row, rows) for row, rows in zip(true, ours, strict=True)]
    assert np.mean(found) >= 0.5


def test_where_the_thief_finds_all_the_mixture_is_their_mean_by_how_sure_they_are(asked):
    *_, answers, every = asked
    parameters, ours = thief(asked)
    recovered, compared = mixture.recover(answers, parameters), 0
    for at, found in enumerate(every):
        distinct = [one for here, one in enumerate(found) if not near(one, found[:here])]
        if not all(near(one, ours[at]) for one in distinct):
            continue
        weights = np.max(distinct, axis=1)
        mean = softmax(weights @ np.log(distinct) / weights.sum())
        assert recovered[at] == pytest.approx(mean, abs=SAME)
        compared += 1
    assert compared >= 2
