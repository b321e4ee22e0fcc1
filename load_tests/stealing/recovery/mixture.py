"""All solutions of equation 2 at once: what they say on average, where ``analytic`` takes one."""

import numpy as np
from scipy.special import softmax

from load_tests.asking.endpoint import Answers
from load_tests.stealing.recovery import analytic
from postprocess.arrays import Float64
from postprocess.parameters import Parameters

#: Log-probabilities of two solutions that differ by less are of one.
ALIKE = 0.01


def recover(answers: Answers, parameters: Parameters) -> Answers:
    """Return the probabilities whose logarithms are the mean of all solutions', shape (n, K).

    Each solution counts once, however many starting points lead to it, and by how sure it is:
    victims are sure of most inputs. Where none is exact, the nearest is taken.

    Args:
        answers, parameters: see ``analytic.recover``; so are the errors.
    """
    found, distance = analytic.solutions(answers, parameters)
    weights = np.where(distance < analytic.EXACT, np.exp(found.max(axis=2)), 0)
    nothing = np.flatnonzero(~weights.any(axis=0))
    weights[distance[:, nothing].argmin(axis=0), nothing] = 1
    for at in range(1, len(found)):
        weights[at] *= ~_seen(found[at], found[:at], weights[:at])
    mean = np.einsum("sn,snk->nk", weights / weights.sum(axis=0), found)
    recovered: Answers = softmax(mean, axis=1).astype(np.float32)
    return recovered


def _seen(one: Float64, before: Float64, weights: Float64) -> Float64:
    same = (np.abs(before - one).max(axis=2) < ALIKE) & (weights > 0)
    seen: Float64 = same.any(axis=0)
    return seen
