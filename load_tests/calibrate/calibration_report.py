"""What a table of calibrated answers is worth: numbers, a table for people and a plot."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from load_tests.calibrate import honest
from load_tests.calibrate.fit import fit
from load_tests.reporting.plots import panels, svg
from postprocess import calibrated
from postprocess.calibration import Calibration
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.pseudo_logits import Float32

#: Rows that a table and its judgement need at least.
LEAST_ROWS = 40
HEAD = ("answers", "ECE", "AURC", "Brier", "top-5", "accuracy", "bits a query")


def make(
    logits: Float32,
    labels: NDArray[np.integer[Any]] | None,
    *,
    levels: int,
    seed: int,
    deceptive: Parameters | None,
    victim: str,
) -> tuple[Calibration, dict[str, Any]]:
    """Return a table, made from one half of the rows, and what the other half says of it.

    Args:
        logits: of held-out rows, shape (n, K).
        labels: their true classes, or None: nothing is judged then, and all rows make the table.
        levels: at most.
        seed: of the halves.
        deceptive: the defence of logits whose answers are shown beside, or None.
        victim: digest of the classifier.
    """
    if labels is None:
        table = fit(logits, None, levels=levels, victim=victim)
        return table, _about(table) | {"answers": {}, "reliability": {}}
    order = np.random.default_rng(seed).permutation(len(logits))
    made_of, judged = order[::2], order[1::2]
    table = fit(logits[made_of], labels[made_of], levels=levels, victim=victim)
    rows, truth = logits[judged], labels[judged]
    answers = {"raw": softmax(rows.astype(np.float64), axis=1)}
    if deceptive is not None:
        answers["deceptive"] = Postprocessor(deceptive)(rows)
    answers["calibrated"] = calibrated.rows(rows, table, probabilities=False)
    answers["label alone"] = np.eye(rows.shape[1])[rows.argmax(axis=1)]
    return table, _about(table) | {
        "judged_rows": len(rows),
        "answers": {name: honest.worth(one, truth) for name, one in answers.items()},
        "reliability": {name: honest.reliability(one, truth) for name, one in answers.items()},
    }


def table_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the judgement as text, a row for each kind of answers."""
    bits = {"calibrated": f"{report['bits']:.1f}", "label alone": f"{report['label_bits']:.1f}"}
    keys = ("ece", "aurc", "brier", "top5", "accuracy")
    return [
        (name, *(f"{worth[key]:.4f}" for key in keys), bits.get(name, ""))
        for name, worth in report["answers"].items()
    ]


def plot(report: dict[str, Any]) -> str:
    """Return the reliability diagrams as SVG, one beside the other."""
    shown = {name: bins for name, bins in report["reliability"].items() if name != "label alone"}
    made, row = panels(len(shown), 3.4 * len(shown), 3.4, sharey=True)
    for axes, (name, bins) in zip(row, shown.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.7", linestyle="--")
        sizes = [8 + 120 * one["rows"] / report["judged_rows"] for one in bins]
        axes.scatter([one["confidence"] for one in bins], [one["accuracy"] for one in bins], sizes)
        axes.set(title=name, xlabel="confidence", xlim=(0, 1.02), ylim=(0, 1.02))
    row[0].set_ylabel("how often right")
    return svg(made)


def _about(table: Calibration) -> dict[str, Any]:
    label_bits = float(np.log2(table.classes))
    return {
        "classes": table.classes,
        "levels": table.levels,
        "rows": table.rows,
        "labelled": table.labelled,
        "label_bits": label_bits,
        "bits": label_bits + float(np.log2(table.levels)),
    }
