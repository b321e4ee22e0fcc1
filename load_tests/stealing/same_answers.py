"""Whether an endpoint still answers as it did when a folder was filled.

Answers of two defences in one folder would be told as the theft of one. So a folder that is gone
on with has its endpoint asked again what it knows the answer to: the first rows of the test set,
which cost no thief a query.
"""

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from load_tests.asking.endpoint import Answers, Query, ask
from load_tests.data.rows import Rows
from postprocess.errors import InputError

ROWS = 8
#: Rounding, by as much as batches of other sizes and other threads may differ.
TOLERANCE = 1e-4


def ask_again(
    reference: Path, models: Mapping[str, tuple[str, Query | None]], test: Rows, *, batch: int
) -> list[str]:
    """Return a line for each model that was asked again and answers as before.

    A defence that draws at random gives no answer twice; of its answers the top classes are
    compared alone. Nothing is asked where there is no file yet.

    Args:
        reference: the file of known answers to ``test``, an array for each model.
        models: by the array's name the model's name and what asks it, None if nothing does.
        test: the test set.
        batch: rows per request, at most.

    Raises:
        InputError: a model answers otherwise.
        EndpointError: the server refused a request or failed on it.
    """
    if not reference.is_file():
        return []
    stored = read(reference)
    known = {name: stored[name][:ROWS] for name in models}
    rows, lines = test[:ROWS], []
    for name, (model, query) in models.items():
        if query is None:
            continue
        before, now = known[name], ask(query, rows, batch_size=batch)
        repeats = _same(before, now) or _same(now, ask(query, rows, batch_size=batch))
        what = "answers" if repeats else "top classes, as it draws its answers at random"
        if not (_same(before, now) if repeats else _same_top(before, now)):
            raise InputError(
                f"--out {reference.parent}: holds answers of {model}, which now answers otherwise: "
                f"{len(rows)} test images asked again. It was retuned, exported anew or is "
                "another's; give --out another folder for what it is now"
            )
        lines.append(
            f"{model}: {len(rows)} test images asked again, of no thief's budget: same {what}"
        )
    return lines


def read(reference: Path) -> dict[str, Answers]:
    """Return the known answers, ``protected`` and of the ``reference``.

    Raises:
        InputError: the file holds something else.
    """
    try:
        with np.load(reference) as stored:
            return {name: stored[name] for name in ("protected", "reference")}
    except (ValueError, KeyError, EOFError, BadZipFile):
        raise InputError(
            f"{reference}: expected answers to the test set; give another --out"
        ) from None


def _same(one: Answers, other: Answers) -> bool:
    """Say whether most rows are alike: rounding to few decimals may tip one the other way."""
    if one.shape != other.shape:
        return False
    return bool(np.median(np.abs(one - other).max(axis=1)) <= TOLERANCE)


def _same_top(one: Answers, other: Answers) -> bool:
    return one.shape == other.shape and bool(
        np.mean(one.argmax(axis=1) == other.argmax(axis=1)) > 0.5
    )
