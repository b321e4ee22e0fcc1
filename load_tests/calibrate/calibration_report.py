"""What a table of calibrated answers is worth: numbers, a table for people and a plot."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from load_tests.calibrate import honest
from load_tests.calibrate.fit import fit, refuse_other_labels
from load_tests.reporting.plots import panels, svg
from postprocess import calibrated
from postprocess.arrays import Float64
from postprocess.calibration import Calibration
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.pseudo_logits import Float32
from postprocess.scores import Scores

#: Rows that a table and its judgement need at least.
LEAST_ROWS = 40
#: Rows of a table below which its answers were further off than the classifier's own (10 draws of
#: Banking77 and Fashion-MNIST, ECE: .122 and .107 of 20 rows, .049 and .052 of 100, .035 and .037
#: of 200, .021 and .026 of 1,000; raw .052 and .036).
ENOUGH_ROWS = 150
HEAD = ("answers", "ECE", "AURC", "Brier", "top-5", "accuracy", "bits a query")


def make(
    logits: Float32,
    labels: NDArray[np.integer[Any]] | None,
    *,
    levels: int,
    seed: int,
    single: bool,
    deceptive: Parameters | None,
    victim: str,
) -> tuple[Calibration, dict[str, Any]]:
    """Return a table, made from one half of the rows, and what the other half says of it.

    Args:
        logits: of held-out rows, shape (n, K), or (n, ..., K) of several positions of each.
        labels: their true classes, or 1 and 0 of yes or no outputs, see ``fit``; below 0 of
            positions that have none. None: nothing is judged then, and all rows make the table.
        levels: at most.
        seed: of the halves.
        single: every logit is a yes or no of its own.
        deceptive: the defence of logits whose answers are shown beside, or None.
        victim: digest of the classifier.

    Raises:
        InputError: see ``fit``, or no position of a half has a label.
    """
    classes, positions = logits.shape[-1], math.prod(logits.shape[1:-1])
    if labels is None:
        every = logits.reshape(-1, classes)
        table = fit(every, None, levels=levels, single=single, victim=victim)
        return table, _about(table, positions) | {"answers": {}, "reliability": {}}
    refuse_other_labels(labels, logits.shape, single=single)
    order = np.random.default_rng(seed).permutation(len(logits))
    # Positions of a row resemble each other: all of them make the table, or judge it.
    halves = (_labelled(logits[half], labels[half]) for half in (order[::2], order[1::2]))
    made_of, (rows, truth) = halves
    table = fit(*made_of, levels=levels, single=single, victim=victim)
    wide = rows.astype(np.float64)
    answers = {"raw": expit(wide) if single else softmax(wide, axis=1)}
    if deceptive is not None:
        answers["deceptive"] = Postprocessor(deceptive)(rows)
    answer = calibrated.sides if single else calibrated.rows
    answers["calibrated"] = answer(rows, table, probabilities=False)
    answers["label alone"] = rows > 0 if single else np.eye(rows.shape[1])[rows.argmax(axis=1)]
    commonest = 0 if single else np.bincount(truth).max() / len(truth)
    if single:
        answers, truth = {key: _pairs(each) for key, each in answers.items()}, truth.reshape(-1)
    return table, _about(table, positions) | {
        "judged_rows": len(rows),
        "commonest_label": float(commonest),
        "answers": {name: honest.worth(one, truth) for name, one in answers.items()},
        "reliability": {name: honest.reliability(one, truth) for name, one in answers.items()},
    }


def warnings(report: dict[str, Any]) -> list[str]:
    """Return what speaks against a table, a line each."""
    said, rows = [], report["rows"]
    if not report["labelled"]:
        said.append(
            "the rows have no labels, so the classifier's own mean confidence stands in for how "
            "often it is right"
        )
    elif rows < ENOUGH_ROWS:
        said.append(
            f"only {rows} rows make the table, so its confidence may be further off than the "
            f"classifier's own; give {2 * ENOUGH_ROWS} held-out rows or more"
        )
    if report["answers"]:
        right, share = report["answers"]["raw"]["accuracy"], report["commonest_label"]
        if right <= share:
            said.append(
                f"the classifier is right on {right:.1%} of the rows, and one label is {share:.1%} "
                "of them: are the labels its classes, in its order?"
            )
    return said


def judged_by(report: dict[str, Any]) -> str:
    """Return what judged a table, such as ``200 other rows``."""
    kind = "positions of other rows" if report["positions"] > 1 else "other rows"
    return f"{report['judged_rows']} {kind}"


def table_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the judgement as text, a row for each kind of answers."""
    bits = {"calibrated": f"{report['bits']:.1f}", "label alone": f"{report['label_bits']:.1f}"}
    keys = ("ece", "aurc", "brier", "top5", "accuracy")
    empty = ("top5",) if report["single"] else ()  # a yes or no has but two classes
    return [
        (
            name,
            *("" if key in empty else f"{worth[key]:.4f}" for key in keys),
            bits.get(name, ""),
        )
        for name, worth in report["answers"].items()
    ]


def plot(report: dict[str, Any]) -> str:
    """Return the reliability diagrams as SVG, one beside the other."""
    shown = {name: bins for name, bins in report["reliability"].items() if name != "label alone"}
    made, row = panels(len(shown), 3.4 * len(shown), 3.4, sharey=True)
    for axes, (name, bins) in zip(row, shown.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.7", linestyle="--")
        rows = sum(one["rows"] for one in bins)
        sizes = [8 + 120 * one["rows"] / rows for one in bins]
        axes.scatter([one["confidence"] for one in bins], [one["accuracy"] for one in bins], sizes)
        axes.set(title=name, xlabel="confidence", xlim=(0, 1.02), ylim=(0, 1.02))
    row[0].set_ylabel("how often right")
    return svg(made)


def _labelled(
    logits: Float32, labels: NDArray[np.integer[Any]]
) -> tuple[Float32, NDArray[np.integer[Any]]]:
    """Return the logits, shape (m, K), and labels of all positions that have one, at least one."""
    rows = logits.reshape(-1, logits.shape[-1])
    truth = labels.reshape(len(rows), -1)
    has = (truth >= 0).all(axis=1)
    if not has.any():
        raise InputError("labels: expected a label at some position of either half, got none")
    return rows[has], truth[has] if truth.shape[1] > 1 else truth[has, 0]


def _about(table: Calibration, positions: int) -> dict[str, Any]:
    label_bits = table.classes if table.single else float(np.log2(table.classes))
    bits = label_bits + float(np.log2(table.levels))
    if table.single:  # of each output, one of the levels on either side, or what is on neither
        bits = table.classes * float(np.log2(2 * table.levels + 1))
    return {
        "classes": table.classes,
        "single": table.single,
        "levels": table.levels,
        "positions": positions,
        "rows": table.rows,
        "labelled": table.labelled,
        "label_bits": positions * label_bits,
        "bits": positions * bits,
    }


def _pairs(answers: Scores) -> Float64:
    """Return each yes or no as probabilities of no and of yes, shape (n * K, 2)."""
    yes = answers.astype(np.float64).reshape(-1)
    return np.stack([1 - yes, yes], axis=1)
