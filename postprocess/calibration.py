"""The table of calibrated answers: what each class and level of confidence is answered with.

It is a file, ``calibration-*.json``, for people to read. Levels are of the victim's confidence, as
the log-odds ``log(p / (1 - p))`` of its top class, and end where ``log_odds`` says.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprocess.arrays import Float64
from postprocess.errors import InputError

FORMAT = "triton-reverse-sigmoid calibration 1"
#: Most levels of a table.
MOST_LEVELS = 100


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A table of at most ``K * levels`` answers.

    Raises:
        InputError: it is none, or an answer would not have its class on top.
    """

    classes: int  #: K; of yes or no outputs, how many there are
    single: bool  #: every score is a yes or no of its own: K = 1, or ``multi_label``
    #: Where a level ends and the next begins, ascending, in log-odds; one fewer than levels.
    log_odds: tuple[float, ...]
    #: What the top class is answered with: a row for each class, or for the yes and then the no of
    #: each output; in it an entry for each level, never falling.
    confidence: tuple[tuple[float, ...], ...]
    victim: str = ""  #: digest of the classifier's files that were asked, see ``calibrate``
    rows: int = 0  #: on how many rows it was seen
    labelled: bool = False  #: seen how often it was right; otherwise its own mean confidence

    def __post_init__(self) -> None:
        cuts, table = self._cuts, self.confidence
        if self.classes < 1 or (self.classes < 2 and not self.single):
            raise InputError(f"classes: expected at least 2, or single true, got {self.classes}")
        if not np.isfinite(cuts).all() or (np.diff(cuts) <= 0).any():
            raise InputError("log_odds: expected finite numbers, each above the one before")
        if self.levels > MOST_LEVELS:
            raise InputError(f"log_odds: expected at most {MOST_LEVELS} levels, got {self.levels}")
        rows = self.classes * 2 if self.single else self.classes
        if len(table) != rows or any(len(row) != self.levels for row in table):
            raise InputError(f"confidence: expected {rows} rows of {self.levels} levels")
        self.refuse_lost_top(np.dtype(np.float64))
        if (np.diff(self.table, axis=1) < 0).any():
            raise InputError("confidence: expected no row to fall from a level to the next")

    @property
    def levels(self) -> int:
        """How many levels there are."""
        return len(self.log_odds) + 1

    @cached_property
    def table(self) -> Float64:
        """The confidences, shape (classes, levels), or (2 * classes, levels) of yes and no."""
        return np.array(self.confidence, np.float64)

    def refuse_lost_top(self, data_type: np.dtype[Any]) -> None:
        """Refuse a table of which an answer, in that type, does not have its class on top.

        Raises:
            InputError: there is such an answer.
        """
        with np.errstate(invalid="ignore"):
            top = self.table
            kept = (top <= 1) & (top.astype(data_type) > self.others(top).astype(data_type))
        if not kept.all():
            raise InputError(
                f"confidence: expected numbers that stay above all other classes in {data_type}, "
                f"{1 / max(self.classes, 2):.4g} to 1, got {top[~kept][0]:.9g}"
            )

    def others(self, confidence: Float64) -> Float64:
        """Return what each of the other classes is answered with, where the top one has this."""
        return (1 - confidence) / (1 if self.single else self.classes - 1)

    def level(self, log_odds: Float64) -> NDArray[np.intp]:
        """Return the level of each of these log-odds."""
        return np.searchsorted(self._cuts, log_odds, side="right")

    @cached_property
    def _cuts(self) -> Float64:
        return np.array(self.log_odds, np.float64)

    @property
    def file_name(self) -> str:
        """What its file is called: another table, another name, so that Triton sees a change."""
        return f"calibration-{hashlib.sha256(self.text().encode()).hexdigest()[:8]}.json"

    def text(self) -> str:
        """Return the file's text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"


def labels_alone(classes: int, *, single: bool) -> Calibration:
    """Return the table whose answers tell the label and nothing else: one level, sure of it.

    Args:
        classes: K; of yes or no outputs, how many there are.
        single: every score is a yes or no of its own.
    """
    rows = classes * 2 if single else classes
    return Calibration(classes=classes, single=single, log_odds=(), confidence=((1.0,),) * rows)


def parse(text: str) -> Calibration:
    """Return the table that a text holds.

    Raises:
        InputError: it holds none, or one that is cut off, of another format or malformed.
    """
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected JSON, got {error}") from None
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        found = said.get("format") if isinstance(said, dict) else type(said).__name__
        raise InputError(f"format: expected {FORMAT!r}, got {found!r}")
    try:
        return Calibration(
            classes=_whole(said["classes"]),
            single=said["single"] is True,
            log_odds=tuple(map(float, said["log_odds"])),
            confidence=tuple(tuple(map(float, row)) for row in said["confidence"]),
            victim=str(said.get("victim", "")),
            rows=_whole(said.get("rows", 0)),
            labelled=said.get("labelled") is True,
        )
    except KeyError as error:
        raise InputError(f"{error.args[0]}: expected it in the table, but it is missing") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"expected numbers and lists of them: {error}") from None


def read(path: Path, *, where: str) -> Calibration:
    """Return the table in a file; ``where`` is what messages call the place that names it.

    Raises:
        InputError: the file cannot be read, or holds no table.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "expected UTF-8"
    except InputError as refusal:
        reason = str(refusal)
    raise InputError(f"{where}: {path}: {reason}")


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value
