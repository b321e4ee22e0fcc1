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


def overconfident_sides(rows, outputs, seed=0, heat=3.0):
    """Logits of yes or no outputs whose sigmoid is too sure, rare ones among them, and labels."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(rows, outputs)) * rng.choice([0.5, 2.0], (rows, 1))
    true -= np.linspace(0, 2, outputs)
    labels = rng.random((rows, outputs)) < 1 / (1 + np.exp(-true))
    return (true * heat).astype(np.float32), labels.astype(int)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_side_of_a_yes_or_no_is_answered_with_how_often_it_was_right_there(outputs):
    logits, labels = overconfident_sides(60_000, outputs)
    table = fit(logits, labels[:, 0] if outputs == 1 else labels, levels=4, single=True)
    assert (table.single, table.levels, len(table.confidence)) == (True, 4, 2 * outputs)
    level = (np.abs(logits)[..., None] >= np.array(table.log_odds)).sum(axis=-1)
    for output in range(outputs):
        for yes in (True, False):
            for each in range(4):
                there = ((logits[:, output] > 0) == yes) & (level[:, output] == each)
                right = (labels[there, output] == yes).mean()
                told = table.confidence[2 * output + (not yes)][each]
                assert there.sum() > 300
                assert told == pytest.approx(max(right, 0.505), abs=0.04)


@pytest.mark.parametrize("outputs", [1, 3])
def test_yes_or_no_answers_are_nearer_the_truth_and_keep_their_side(outputs):
    logits, labels = overconfident_sides(20_000, outputs)
    table = fit(logits, labels, single=True)
    new, truth = overconfident_sides(20_000, outputs, seed=1)
    answer = calibrated.sides(new, table, probabilities=False)
    assert ((answer > 0.5) == (new > 0)).all()
    raw = 1 / (1 + np.exp(-new.astype(float)))
    assert np.square(answer - truth).mean() < 0.9 * np.square(raw - truth).mean()


def test_a_side_that_is_never_taken_has_its_table_and_the_middle_says_nothing():
    logits = np.float32([[4], [5], [6], [0]] * 30)
    table = fit(logits, np.ones(120, int), levels=3, single=True)
    assert table.levels == 3
    assert min(table.confidence[0]) > 0.9
    assert (table.table > 0.5).all()
    with pytest.raises(InputError, match="all in the middle"):
        fit(np.zeros((9, 2), np.float32), None, single=True)


@pytest.mark.parametrize(
    ("shape", "labels", "single", "said"),
    [
        ((5, 3), [0, 1, 2, 3, 0], False, "classes from 0 to 2, shape (5,), got 0 to 3"),
        ((5, 3), np.zeros((5, 3), int), False, "classes from 0 to 2"),
        ((5, 3), [0, 1, 1, 0, 0], True, "1 for yes and 0 for no, shape (5, 3)"),
        ((5, 1), [0, 1, 2, 0, 0], True, "shape (5, 1) or (5,), got 0 to 2"),
    ],
)
def test_labels_of_other_classes_are_refused(shape, labels, single, said):
    scores = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with pytest.raises(InputError, match="labels: expected ") as refused:
        fit(scores, np.array(labels), single=single)
    assert said in str(refused.value)
