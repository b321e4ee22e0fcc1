"""What the step holds in memory while it works, beside the scores that it was given."""

import tracemalloc

import numpy as np
import pytest

from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

MODES = {
    "kernel": {},
    "numpy": {"native": False},
    "gamma above 1": {"gamma": 3.0},
    "probabilities": {"scores": "probabilities"},
    "float64": {"dtype": np.float64},
    "decimals": {"decimals": 2},
    "decimals without kernel": {"decimals": 2, "native": False},
    "decoy": {"defense": "decoy"},
    "uniform": {"defense": "uniform"},
    "multi-label": {"multi_label": True},
}


def prepared(mode, *, rows, classes, scale):
    """A defence of this mode, and scores of the kind that it takes."""
    changes = {"scores": "logits", "beta": 1.5, "gamma": 0.2, "margin": 0.01, **MODES[mode]}
    native, dtype = changes.pop("native", True), changes.pop("dtype", np.float32)
    parameters = Parameters(**changes)
    scores = (np.random.default_rng(0).normal(size=(rows, classes)) * scale).astype(dtype)
    if parameters.scores == "probabilities":
        scores = np.exp(scores)
        scores /= scores.sum(axis=1, keepdims=True)
    return Postprocessor(parameters, native=native), scores


@pytest.mark.parametrize("mode", MODES)
def test_the_peak_is_at_most_four_times_the_input(mode):
    defence, scores = prepared(mode, rows=256, classes=1000, scale=1)
    defence(scores)
    tracemalloc.start()
    try:
        answer = defence(scores)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.nbytes <= peak <= 4 * scores.nbytes


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("kernel", "uniform")])
def test_many_rows_are_answered_as_each_alone(mode):
    defence, scores = prepared(mode, rows=40, classes=3000, scale=3)
    together = defence.protect(scores)
    apart = [defence.protect(scores[row : row + 1]) for row in range(len(scores))]
    assert (together.probabilities == np.concatenate([one.probabilities for one in apart])).all()
    assert together.capped_rows == sum(one.capped_rows for one in apart)
