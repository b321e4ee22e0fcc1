"""The table of calibrated answers, in the hands of those who steal.

No secret keeps a defence whole: where an endpoint answers by a table, thieves are to know it. It is
theirs only if the endpoint does answer so, or what they get would be told as more than it is.
"""

from pathlib import Path

import numpy as np

from load_tests.asking.endpoint import Answers
from postprocess import calibration
from postprocess.calibration import Calibration
from postprocess.errors import InputError

#: How far an answer may be from the table's: float16 rounds by half of that.
TOLERANCE = 1e-3
#: How far the lesser classes of a calibrated answer may be from each other.
FLAT = 1e-6


def read(path: str) -> Calibration | None:
    """Return the table in a file, None without a path.

    Raises:
        InputError: the file cannot be read, holds no table, or one of yes or no outputs.
    """
    if not path:
        return None
    table = calibration.read(Path(path), where="--calibration")
    if table.single:
        raise InputError(
            f"--calibration {path}: is of yes or no outputs, which attacks do not learn from"
        )
    return table


def refuse_other_answers(table: Calibration, answers: Answers, model: str) -> None:
    """Return if every answer is one of the table's.

    Args:
        table: of one choice among classes.
        answers: the endpoint's, shape (n, K), rows sum to 1.
        model: what messages call it.

    Raises:
        InputError: one is not.
    """
    if answers.shape[1] != table.classes:
        raise InputError(
            f"--calibration: is a table of {table.classes} classes, and {model} answers with "
            f"{answers.shape[1]}"
        )
    top = answers.argmax(axis=1)
    said = answers[np.arange(len(answers)), top]
    nearest = np.abs(table.table[top] - said[:, None]).min(axis=1)
    lesser = np.sort(answers, axis=1)[:, :-1]
    other = np.abs(lesser - table.others(said)[:, None]).max(axis=1)
    off = np.maximum(nearest, other) > TOLERANCE
    if off.any():
        row = int(off.argmax())
        raise InputError(
            f"--calibration: is not what {model} answers by: test row {row} got class {top[row]} "
            f"with {said[row]:.4f}, which the table does not have; give the calibration-*.json "
            "that its config.pbtxt names, or leave it out"
        )


def looks_calibrated(answers: Answers) -> bool:
    """Return whether answers, shape (n, K), seem to come from a table that tells more than labels.

    Of two classes nothing can be told: the lesser one says what the top one does.
    """
    if answers.shape[1] < 3:
        return False
    lesser = np.sort(answers, axis=1)[:, :-1]
    flat = bool((np.ptp(lesser, axis=1) <= FLAT).all())
    return flat and len(np.unique(answers.max(axis=1))) > 1
