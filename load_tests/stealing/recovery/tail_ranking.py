"""Reading the reversed tail: what the order of the lesser classes gives away.

Left of the curve's minimum the answer falls as the probability rises, so of the classes below
the top one the least of the answer is the likeliest of the victim.
"""

import numpy as np

from load_tests.asking.endpoint import Answers


def recover(answers: Answers, prior: Answers) -> Answers:
    """Return the prior's mean profile, laid out in the order read off each answer.

    Args:
        answers: the endpoint's, shape (n, K), rows sum to 1.
        prior: probabilities of the adversary's own model, shape (m, K).
    """
    profile = np.sort(prior, axis=1)[:, ::-1].mean(axis=0)
    top = answers.argmax(axis=1)
    order = answers.astype(np.float64)
    order[np.arange(len(answers)), top] = -1  # first of all
    places = order.argsort(axis=1, kind="stable").argsort(axis=1)
    recovered: Answers = profile[places].astype(np.float32)
    return recovered
