import pytest

from load_tests.stealing.report import summary_lines
from load_tests.stealing.thief import Thief, suite
from load_tests.stealing.verdict import best_curve, queries_needed, summary
from postprocess.errors import InputError


def result(name, queries, agreement, *, outsider=True, labels_only=False):
    return {
        "name": name,
        "queries": queries,
        "agreement": agreement,
        "outsider": outsider,
        "labels_only": labels_only,
    }


RESULTS = [
    result("sample", 100, 0.2),
    result("sample", 400, 0.4),
    result("sample-table", 100, 0.5),
    result("sample-table", 400, 0.9),
    result("sample-mlp", 400, 0.99, outsider=False),
    result("sample-labels", 100, 0.6, labels_only=True),
    result("sample-labels", 400, 0.8, labels_only=True),
    result("random-labels", 400, 0.95, labels_only=True),
    result("sample-unprotected", 100, 0.9, outsider=False),
]


def test_the_best_attack_is_an_outsiders_who_keeps_more_than_labels():
    assert best_curve(RESULTS) == [(100, 0.5), (400, 0.9)]
    small, large = summary(RESULTS, prices=(1, 10))["budgets"]
    assert small["best"] == large["best"] == "sample-table"
    assert (small["best_label_thief"], large["best_label_thief"]) == (
        "sample-labels", "random-labels",
    )  # fmt: skip
    assert small["honest_score"] == pytest.approx(-0.1)
    assert large["honest_score"] == pytest.approx(-0.05)


def test_with_fewer_than_five_queries_a_class_there_is_no_honest_score():
    small, large = summary(RESULTS, prices=(1, 10), classes=21)["budgets"]
    assert small["honest_score"] is None
    assert (small["best_agreement"], small["labels_only"]) == (0.5, 0.6)
    assert large["honest_score"] is not None


def test_what_an_agreement_takes_is_told_of_thieves_who_were_run_alone():
    alone = [result("sample", 100, 0.6)]
    report = {"results": alone, "summary": summary(alone, prices=(1, 10))}
    (line,) = [line for line in summary_lines(report) if line.startswith("agreement 0.50")]
    assert "naive 100" in line
    assert "not reached" not in line
    assert "labels only" not in line
    assert "unprotected" not in line


@pytest.mark.parametrize(
    ("level", "queries"),
    [(0.1, 100), (0.2, 100), (0.3, 200), (0.4, 400), (0.41, None)],
)
def test_queries_between_two_budgets_are_interpolated_over_their_logarithm(level, queries):
    needed = queries_needed([(100, 0.2), (400, 0.4)], level)
    assert needed == (None if queries is None else pytest.approx(queries))


def test_a_theft_costs_its_queries_times_the_price():
    needed = summary(RESULTS, prices=(1, 10))["queries_needed"]
    (at_90,) = [need for need in needed if need["agreement"] == 0.9]
    assert at_90["queries"]["best"] == pytest.approx(400)
    assert at_90["dollars"]["best"] == pytest.approx([0.4, 4])
    assert at_90["dollars"]["naive"] is None
    assert at_90["queries"]["unprotected"] == 100


def test_every_thief_of_the_suite_has_a_name_of_its_own():
    names = [thief.name for thief in suite(with_victim=True)]
    assert len(set(names)) == len(names)
    assert {"sample", "sample-labels", "sample-unprotected", "sample-table"} <= set(names)
    assert {"sample-analytic-logits", "k_center-labels", "sample-labels-consistency"} <= set(names)
    assert all(thief.outsider for thief in suite(with_victim=False))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"attack": "steal"}, "attack: expected sample, random, .* got 'steal'"),
        ({"attack": "sample", "loss": "x"}, "--loss: expected cross_entropy, .* got 'x'"),
        ({"attack": "sample", "recover": "x"}, "--recover: expected tail, .* got 'x'"),
        ({"attack": "sample", "labels_only": True, "loss": "mse"}, "--labels-only: leaves nothing"),
        ({"attack": "sample", "loss": "same_layer", "recover": "table"}, "--loss same_layer: "),
        ({"attack": "duplicates", "recover": "mlp"}, "--recover mlp: is not for the mean"),
        ({"attack": "sample", "learn": "x"}, "--learn: expected self_training, .* got 'x'"),
        ({"attack": "sample", "loss": "smoothed"}, "--loss smoothed: is of labels, and goes with"),
        (
            {"attack": "sample", "loss": "same_layer", "learn": "self_training"},
            "--loss same_layer: learns from protected answers, not --learn",
        ),
    ],
)
def test_thieves_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        Thief(**settings)
