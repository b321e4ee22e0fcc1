"""What an honest client can do with answers: believe them, abstain by them, show five of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from load_tests.reporting import measures
from postprocess.scores import Scores

#: The measures by their names for people.
HEAD = {"ece": "ECE", "aurc": "AURC", "brier": "Brier", "top5": "top-5 accuracy"}


def worth(answers: Scores, labels: NDArray[np.integer[Any]]) -> dict[str, float]:
    """Return what probabilities, shape (n, K), are worth to whoever does not know the labels.

    ``accuracy``; ``ece``, the expected calibration error (15 bins); ``aurc``, the area under the
    risk-coverage curve; ``brier``; and ``top5``, how often the label is among the five highest.
    """
    return {
        "accuracy": measures.accuracy(answers, labels),
        "ece": measures.calibration_error(answers, labels),
        "aurc": measures.risk_coverage(answers, labels),
        "brier": measures.brier(answers, labels),
        "top5": measures.top5_accuracy(answers, labels),
    }


def reliability(
    answers: Scores, labels: NDArray[np.integer[Any]], *, bins: int = 15
) -> list[dict[str, float]]:
    """Return the reliability diagram: of each bin that has rows, confidence, accuracy and rows."""
    confidence = answers.max(axis=1).astype(np.float64)
    right = (answers.argmax(axis=1) == labels).astype(np.float64)
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = np.bincount(which, minlength=bins)
    sums = {"confidence": confidence, "accuracy": right}
    means = {key: np.bincount(which, value, minlength=bins) for key, value in sums.items()}
    return [
        {key: float(means[key][one] / rows[one]) for key in sums} | {"rows": int(rows[one])}
        for one in np.flatnonzero(rows)
    ]
