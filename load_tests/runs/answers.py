"""What an endpoint may answer with besides a defence: for comparison, and calibrated answers.

| name | an answer is |
| --- | --- |
| ``labels`` | the top class |
| ``top1`` | the top class and its probability, a flat rest |
| ``rounded D`` | the probabilities, rounded to so many decimals |
| ``calibrated L`` | the top class and one of so many levels, see ``load_tests.calibrate`` |

All keep the victim's top class.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from load_tests.asking.endpoint import Answers
from load_tests.calibrate.fit import fit
from load_tests.runs.victims import Logits
from postprocess import calibrated, top1
from postprocess.errors import InputError


def find(
    name: str, logits: Logits, labels: NDArray[np.integer[Any]] | None
) -> Callable[[Logits], Answers]:
    """Return what makes answers of logits.

    Args:
        name: see above.
        logits: of held-out rows, of which tables are made, shape (n, K).
        labels: of the same rows, where they are known.

    Raises:
        InputError: the name is unknown, or there is no table of so many levels.
    """
    if name in ("labels", "top1"):
        return _label if name == "labels" else _top_alone
    found = re.fullmatch("(rounded|calibrated) ([0-9]+)", name)
    if found is None:
        raise InputError(f"answers: expected labels, top1, rounded D or calibrated L, got {name!r}")
    number = int(found[2])
    if found[1] == "rounded":
        return lambda some: _rounded(some, number)
    table = fit(logits, labels, levels=number)
    return lambda some: calibrated.rows(some, table, probabilities=False)


def _label(logits: Logits) -> Answers:
    rows: Answers = np.eye(logits.shape[1], dtype=np.float32)[logits.argmax(axis=1)]
    return rows


def _top_alone(logits: Logits) -> Answers:
    scores = softmax(logits, axis=1)
    at, top = np.arange(len(scores)), scores.argmax(axis=1)
    highest = scores[at, top]
    rows = np.repeat((1 - highest)[:, None] / (scores.shape[1] - 1), scores.shape[1], axis=1)
    rows[at, top] = highest
    answer: Answers = rows.astype(np.float32)
    return answer


def _rounded(logits: Logits, decimals: int) -> Answers:
    scores = softmax(logits.astype(np.float64), axis=1)
    at, top = np.arange(len(scores)), scores.argmax(axis=1)
    rows = np.round(scores, decimals)
    rows[at, top] = np.maximum(rows[at, top], 10.0**-decimals)  # of many classes all may be 0
    answer: Answers = (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)
    top1.keep_top(answer, top)
    return answer
