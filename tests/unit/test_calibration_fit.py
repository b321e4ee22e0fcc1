"""The table of calibrated answers and the measures of what they are worth."""

import numpy as np
import pytest

from load_tests.calibrate import honest
from load_tests.calibrate.fit import fit
from load_tests.reporting import measures
from postprocess import calibrated
from postprocess.errors import InputError

CLASSES = 6


def overconfident(rows, seed=0, heat=3.0):
    """Logits whose softmax is ``heat`` times too sure, and labels drawn from the true chances."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(rows, CLASSES)) * rng.choice([0.5, 2.0, 4.0], (rows, 1))
    chances = np.exp(true - true.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    labels = (chances.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).clip(max=CLASSES - 1)
    return (true * heat).astype(np.float32), labels


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
    return weights / weights.sum(axis=1, keepdims=True)


def test_levels_hold_about_as_many_rows_each_and_never_fall():
    logits, labels = overconfident(6000)
    table = fit(logits, labels, levels=8)
    _, odds = calibrated.top_and_log_odds(logits, probabilities=False)
    assert table.levels == 8
    assert np.abs(np.bincount(table.level(odds)) - 750).max() <= 1
    assert (np.diff(table.table, axis=1) >= 0).all()
    assert table.rows == 6000
    assert table.labelled


def test_a_class_is_answered_with_how_often_it_was_right_there():
    logits, labels = overconfident(60_000)
    table = fit(logits, labels, levels=4)
    top, odds = calibrated.top_and_log_odds(logits, probabilities=False)
    for k in range(CLASSES):
        for level in range(4):
            there = (top == k) & (table.level(odds) == level)
            assert table.confidence[k][level] == pytest.approx(
                (labels[there] == k).mean(), abs=0.03
            )


def test_honest_clients_get_calibrated_answers_from_an_overconfident_victim():
    logits, labels = overconfident(20_000)
    table = fit(logits, labels, levels=10)
    new, truth = overconfident(20_000, seed=1)
    raw = honest.worth(softmax(new), truth)
    answered = honest.worth(calibrated.rows(new, table, probabilities=False), truth)
    assert answered["accuracy"] == raw["accuracy"]
    assert raw["ece"] > 0.2
    assert answered["ece"] < 0.02
    assert answered["aurc"] < 1.05 * raw["aurc"]


def test_without_labels_the_victims_own_confidence_counts():
    logits, _ = overconfident(5000)
    table = fit(logits, None, levels=5)
    answer = calibrated.rows(logits, table, probabilities=False)
    assert not table.labelled
    assert answer.max(axis=1).mean() == pytest.approx(softmax(logits).max(axis=1).mean(), abs=0.01)


def test_a_class_never_seen_takes_the_mean_of_its_level():
    logits, labels = overconfident(4000)
    seen = logits.argmax(axis=1) != 2
    table = fit(logits[seen], labels[seen], levels=3)
    others = np.delete(table.table, 2, axis=0)
    assert (table.table[2] > others.min(axis=0)).all()
    assert (table.table[2] < others.max(axis=0)).all()


def test_confidences_that_are_all_alike_make_one_level():
    logits = np.tile(np.float32([4, 0, 0]), (50, 1))
    table = fit(logits, np.zeros(50, int), levels=10)
    assert table.levels == 1
    assert 0.9 < table.confidence[0][0] < 1


@pytest.mark.parametrize("levels", [0, 101])
def test_a_number_of_levels_that_cannot_be_is_refused(levels):
    with pytest.raises(InputError, match="--levels: expected 1 to 100"):
        fit(*overconfident(10), levels=levels)


def test_risk_coverage_is_the_mean_risk_over_all_coverages():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    assert measures.risk_coverage(p, np.array([0, 1, 0, 1])) == pytest.approx(
        (0 + 1 / 2 + 1 / 3 + 2 / 4) / 4
    )


def test_risk_coverage_takes_ties_in_any_order():
    p = np.array([[0.6, 0.4]] * 4)
    assert measures.risk_coverage(p, np.array([0, 1, 1, 0])) == pytest.approx(0.5)


def test_ties_share_the_five_places():
    flat = np.array([[0.5, *[0.05] * 10]])
    assert measures.top5_accuracy(flat, np.array([0])) == 1
    assert measures.top5_accuracy(flat, np.array([3])) == pytest.approx(4 / 10)
    ranked = np.array([[0.4, 0.2, 0.15, 0.1, 0.08, 0.07]])
    assert measures.top5_accuracy(ranked, np.array([5])) == 0
