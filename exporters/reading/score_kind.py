"""What scores are: logits or probabilities, of one choice or of many, by the graph and by sight."""

from dataclasses import dataclass

import numpy as np

from exporters.reading.graph_ending import Ending
from postprocess.arrays import Float64
from postprocess.errors import InputError
from postprocess.scores import PROBABILITY_SUM_TOLERANCE, looks_like_probabilities

#: How far outside [0, 1] a probability may be: onnxruntime's own Sigmoid gives 1.0000001.
ROUNDING = 1e-6


@dataclass(frozen=True)
class ScoreKind:
    """What a tensor of scores is, and what is done with it."""

    kind: str  #: "logits" or "probabilities", as the defence gets them
    multi_label: bool  #: each score is a yes or no of its own
    cut: Ending | None  #: the activation that is taken off


@dataclass(frozen=True)
class Seen:
    """What rows of scores look like."""

    count: int
    single: bool  #: one score a row
    within: bool  #: every score is in [0, 1]
    sums: bool  #: every row is one choice's probabilities
    total: float  #: what every row sums to, no score below 0; 0 where the sums differ
    surprise: bool  #: every row is minus the logarithms of one choice's probabilities

    @classmethod
    def of(cls, rows: Float64, *, rounded: bool) -> "Seen":
        """Look at finite rows of scores, shape (rows, K); ``rounded``: to 8 bits or so."""
        single = rows.shape[1] == 1
        totals = rows.sum(axis=1)
        if rounded:
            within = bool(looks_like_probabilities(rows, single=True).all())
            sums = bool(looks_like_probabilities(rows).all())
        else:
            within = bool(((rows >= -ROUNDING) & (rows <= 1 + ROUNDING)).all())
            sums = within and bool((np.abs(totals - 1) <= PROBABILITY_SUM_TOLERANCE).all())
        middle = float(np.median(totals))
        even = len(rows) > 1 and bool((np.abs(totals - middle) <= 0.01 * middle).all())
        scaled = not single and even and middle > 0 and bool((rows >= -ROUNDING * middle).all())
        likely = np.exp(-np.maximum(rows, 0)).sum(axis=1)
        surprise = not single and bool(
            (rows >= -ROUNDING).all() and (np.abs(likely - 1) <= PROBABILITY_SUM_TOLERANCE).all()
        )
        total = middle if scaled else 0.0
        return cls(len(rows), single, within, sums and not single, total, surprise)


def understand(
    rows: Float64,
    end: Ending | None,
    *,
    half: bool,
    rounded: bool,
    asked: str,
    multi_label: bool | None,
) -> tuple[ScoreKind, list[str]]:
    """Return what the scores are, and what to know about it.

    Args:
        rows: finite scores of the graph on many inputs, shape (rows, K).
        end: the activation that the graph ends in, if it does.
        half: the graph computes in 16 bits somewhere.
        rounded: the graph computes in 8 bits somewhere.
        asked: "logits" or "probabilities", "" to find out.
        multi_label: as asked, None to find out.

    Raises:
        InputError: what was asked contradicts what the graph gives, or nothing fits.
    """
    seen = Seen.of(rows, rounded=rounded or (end is not None and "Round" in end.changed))
    _refuse_graph(end, seen, asked, multi_label)
    known = end if end is not None and not end.changed else None
    sigmoid = known is not None and known.op == "Sigmoid"
    multi = not seen.single and (sigmoid if multi_label is None else multi_label)
    if multi and not sigmoid and seen.sums:
        raise InputError(
            f"--multi-label: all {seen.count} rows tried sum to 1, so the classes exclude each "
            "other; leave it out"
        )
    shown = seen.within if seen.single or multi else seen.sums
    kept, warnings = _kept_whole(known, asked, shown=shown, half=half)
    if asked == "probabilities" and not (shown or kept):
        raise InputError(_no_probabilities(seen))
    if known is not None and known.can_be_cut and not kept:
        if sigmoid and not seen.single and not multi:
            warnings.append(
                "the graph ends in a Sigmoid for each class; with --no-multi-label the defence "
                "takes their logits for one choice among all classes"
            )
        return ScoreKind("logits", multi, known), warnings
    if asked == "logits" and (shown or kept):
        raise InputError(_no_logits(known, seen))
    if shown or kept:
        return ScoreKind("probabilities", multi, None), warnings
    _refuse_unclear(end, seen, asked)
    if asked == "logits" and seen.within:
        warnings.append("--scores logits: all scores tried lie in [0, 1], as probabilities do")
    if not asked and seen.single:
        warnings.append("the one score of a row is taken for the logit of a yes")
    return ScoreKind("logits", multi, None), warnings


def _refuse_graph(end: Ending | None, seen: Seen, asked: str, multi_label: bool | None) -> None:
    """Refuse what the graph itself says that cannot be."""
    if end is None:
        return
    if end.op == "TopK":
        raise InputError(
            "made by TopK: the highest scores by rank, so that a place is no class; make the "
            "tensor before the TopK, with the scores of all classes, the output"
        )
    softmax = end.op in ("Softmax", "LogSoftmax")
    if multi_label and softmax:
        raise InputError(
            f"--multi-label: the graph ends in a {end.op}, so its classes exclude each other; "
            "leave it out"
        )
    if seen.single and softmax:
        raise InputError(
            f"a {end.op} over one class is always {1 if end.op == 'Softmax' else 0}; export the "
            "model with the scores of all its classes"
        )


def _kept_whole(
    known: Ending | None, asked: str, *, shown: bool, half: bool
) -> tuple[bool, list[str]]:
    """Return whether a graph's probabilities are left as they are, and what to know of it."""
    if known is None or known.op == "LogSoftmax":
        return False, []
    if known.rounded:
        return True, []
    if known.op == "Softmax" and half and not asked:
        # What runs the graph may compute in float32, and so tell apart what 16 bits do not.
        return True, [
            "left as probabilities: the logits before the Softmax, rounded to 16 bits, need not "
            "have the top class of the probabilities"
        ]
    return asked == "probabilities" and shown, []


def _no_probabilities(seen: Seen) -> str:
    where = "--scores probabilities: on the input that was tried, "
    if not seen.within:
        return f"{where}scores lie outside [0, 1]; leave it out"
    return (
        f"{where}rows do not sum to 1; give --multi-label too if each score is a yes or no of its "
        "own"
    )


def _no_logits(known: Ending | None, seen: Seen) -> str:
    if known is not None:
        why = f"the graph ends in a {known.op}, its probabilities rounded"
    else:
        sums = "" if seen.single or not seen.sums else " and sum to 1"
        why = f"all {seen.count} rows tried lie in [0, 1]{sums}"
    return (
        f"--scores logits: {why}: they are probabilities, which the defence of logits would hardly "
        "touch; leave it out"
    )


def _refuse_unclear(end: Ending | None, seen: Seen, asked: str) -> None:
    """Refuse what is neither probabilities nor, as far as can be told, logits."""
    log = end is not None and (end.op == "LogSoftmax" or "Log" in end.changed)
    if seen.surprise:
        raise InputError(
            "no score is below 0 and exp(-score) of every row sums to 1: minus the logarithms of "
            "probabilities, of which the lowest is the top class; export the model without that "
            "minus"
        )
    if seen.total and not log:
        raise InputError(
            f"no score is below 0 and every row sums to {seen.total:.4g}: probabilities times "
            f"{seen.total:.4g}, not logits; export the model without that scaling"
        )
    if end is not None and end.changed and end.op != "LogSoftmax" and not log:
        nodes = ", ".join(dict.fromkeys(end.changed))
        extra = (
            "; give --multi-label if each score is a yes or no of its own"
            if seen.within and end.op == "Sigmoid"
            else ""
        )
        raise InputError(
            f"the graph changes the probabilities of its {end.op} by {nodes}, so that rows do not "
            f"sum to 1; make what the {end.op} gives the output{extra}"
        )
    if seen.within and not asked:
        raise InputError(
            "the scores lie in [0, 1] and rows do not sum to 1: give --multi-label if each is a "
            "yes or no of its own; probabilities of one choice are protected with all their "
            "classes, and real rows with --sample may show that they are"
        )
