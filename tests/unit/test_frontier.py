"""What a study of answers asks for, and what it tells."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from load_tests.frontier import page
from load_tests.frontier.gains import gain, honest, late, mean
from load_tests.frontier.study import KINDS, LABELS, Study
from load_tests.runs import answers
from load_tests.runs.criterion import PILOT
from load_tests.runs.run import Run, Victim
from load_tests.stealing.recovery.recover import Knowledge, recover
from load_tests.stealing.transfer_set import TransferSet
from load_tests.tune import answers_tried
from postprocess.errors import InputError
from postprocess.parameters import Parameters

STUDY = Study(data="digits", classes=10, pool=300, seeds=3, kinds=KINDS[:2])
RNG = np.random.default_rng(0)
LOGITS = (RNG.normal(size=(4000, 10)) * 3).astype(np.float32)
CLASSES = np.array([RNG.choice(10, p=row) for row in softmax(LOGITS.astype(float), axis=1)])


class Results:
    """Runs that have been made, each with the agreement that a function of it says."""

    def __init__(self, agreement, *, late=0.005):
        self.made, self.agreement, self.late = {}, agreement, late

    def make_all(self, study):
        while missing := [run for run in study.needed(self) if run.name not in self.made]:
            self.make(missing)

    def make(self, runs):
        for run in runs:
            worth = {"accuracy": 0.9, "ece": 0.01, "aurc": 0.02, "brier": 0.1, "top5": 0.99}
            self.made[run.name] = {
                "stolen": {"agreement": self.agreement(run)},
                "curve": [
                    {"agreement": self.agreement(run) - lack} for lack in (0.3, self.late, 0)
                ],
                "protected": {"agreement": 1.0},
                "honest": worth,
            }

    def __call__(self, run):
        return self.made.get(run.name)


def agreement(run):
    """Labels .5 and a bit by seed; raw .1 more; a thief who distils best, and on seed 2 worst."""
    distils = run.thief.learn == "self_distillation" and run.loss == "cross_entropy"
    sign = -1 if run.seed == 2 else 1
    return 0.5 + run.seed / 100 + 0.1 * (run.answers == "") + 0.02 * sign * distils


def test_thieves_are_chosen_with_each_budget_on_a_seed_that_is_not_told_of():
    known = Results(lambda run: agreement(run) + (run.queries > 50) * (run.learn == "consistency"))
    first = list(STUDY.needed(known))
    assert {run.seed for run in first} == {PILOT}
    assert {run.queries for run in first} == {50, 100, 200, 300}  # the pool, at most
    known.make_all(STUDY)
    assert PILOT not in STUDY.told
    told = [run for run in STUDY.needed(known) if run.seed in STUDY.told]
    ways = {(run.queries > 50, run.learn) for run in told}
    assert ways == {(False, "self_distillation"), (True, "consistency")}  # on seed 2 as well
    assert len(told) == len(STUDY.told) * len(STUDY.budgets) * 3
    assert len({run.name for run in told}) == len(told)


def test_several_pilot_seeds_choose_by_their_mean():
    def lucky(run):
        best = {0: "self_training", 1000: "consistency", 1001: "consistency"}.get(run.seed)
        return agreement(run) + (0.3 if run.seed == 0 else 0.25) * (run.learn == best)

    known, several = Results(lucky), replace(STUDY, pilot_seeds=3, budgets=(5,))
    known.make_all(several)
    told = [run for run in several.needed(known) if run.seed in several.told]
    assert {run.learn for run in told} == {"consistency"}
    assert {run.seed for run in several.needed(known)} == {PILOT, 1, 2, 3, 1000, 1001}


def test_what_decides_is_asked_for_with_every_budget_and_the_rest_with_the_first():
    whole = Study(data="digits", classes=10, pool=300, seeds=1)
    known = Results(agreement)
    known.make_all(whole)
    told = [run for run in whole.needed(known) if run.seed in whole.told]
    counted = {at: sum(run.queries == at for run in told) for at in (50, 100, 200, 300)}
    assert counted == {50: 1 + len(KINDS), 100: 5, 200: 5, 300: 5}
    few = {run.answers for run in told if run.queries == 100}
    assert few == {"labels", "", "calibrated 10", "rounded 1", "rounded 2"}


def test_thieves_train_until_queries_are_short_and_labels_have_what_probabilities_have():
    runs = list(Study(data="digits", classes=10, pool=300).needed(lambda _: None))
    assert {run.steps for run in runs} == {3000}
    of_labels = {(run.loss, run.learn) for run in runs if run.labels_only}
    of_rows = {run.learn for run in runs if not run.labels_only}
    assert {learn for _, learn in of_labels} >= of_rows
    assert {"smoothed", "spread"} <= {loss for loss, _ in of_labels}
    matched = {run.answers for run in runs if run.loss == "logits" and not run.defence}
    assert matched == {
        "",
        "top1",
        *(f"calibrated {n}" for n in (1, 4, 10)),
        "rounded 1",
        "rounded 2",
    }


def test_a_gain_is_the_mean_over_seeds_of_what_is_above_labels():
    known = Results(agreement)
    known.make(list(STUDY.needed(known)))
    assert gain(STUDY, KINDS[0], 5, known) is None
    known.make_all(STUDY)
    told = gain(STUDY, KINDS[0], 5, known)
    assert (told.value, told.error, told.seeds) == (pytest.approx(0.1), pytest.approx(0), 3)
    assert gain(STUDY, KINDS[1], 5, known).value == pytest.approx(0)
    assert honest(STUDY, LABELS, known)["agreement"].value == 1
    assert late(STUDY, known) == pytest.approx(0.005)


def test_who_gets_less_from_an_answer_than_from_its_label_is_told_as_he_is(tmp_path):
    known = Results(lambda run: agreement(run) - 0.2 * run.answers.startswith("calibrated"))
    known.make_all(STUDY)
    assert gain(STUDY, KINDS[1], 5, known).value == pytest.approx(-0.2)
    text = page.write(tmp_path, [STUDY], known, command="frontier").read_text()
    assert "| calibrated, 10 levels | 0.0100 | 0.0200 | 0.1000 | 0.9900 | 1.000 | -0.200" in text
    assert "- holds: 50 queries: gain at most 0.0150: -0.2000" in text


def test_thieves_of_labels_that_no_pilot_chose_are_told_of_apart(tmp_path):
    def better_unseen(run):
        better = run.thief.labels_only and run.learn == "self_training" and run.seed > PILOT
        return agreement(run) + 0.04 * better

    known = Results(better_unseen)
    known.make_all(STUDY)
    assert "on these very seeds" not in page.write(tmp_path, [STUDY], known, command="").read_text()
    unchosen = LABELS.thieves[3]
    assert unchosen == {"labels_only": True, "learn": "self_training"}
    known.make([STUDY.run(LABELS, 5, seed, unchosen) for seed in STUDY.told])
    text = page.write(tmp_path, [STUDY], known, command="").read_text()
    assert "1.000 | +0.100 (0.000)" in text  # the table's is over whom the pilot chose
    assert (
        "on these very seeds, 50 queries: self_training 0.560 (0.006); self_distillation 0.527"
        in text
    )
    assert (
        "best by luck too: raw probabilities +0.067 (0.013); calibrated, 10 levels -0.033" in text
    )


def test_an_error_is_that_of_a_mean():
    assert mean([1.0]) is None
    assert mean([1.0, 2.0, 3.0, 4.0]).error == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2)


@pytest.mark.parametrize(("late", "said"), [(0.005, "+0.005)"), (0.02, "+0.020: more would add")])
def test_the_page_says_whether_thieves_were_still_learning(late, said, tmp_path):
    known = Results(agreement, late=late)
    known.make_all(STUDY)
    text = page.write(tmp_path, [STUDY], known, command="frontier").read_text()
    assert f"thieves of 3,000 steps (of one training, the second half of them added {said}" in text


def test_the_page_says_which_bar_does_not_hold_and_is_made_of_its_file_alone(tmp_path):
    def leaking(run):
        return agreement(run) + (0.05 if run.answers == "calibrated 10" else 0)

    known = Results(leaking)
    known.make_all(STUDY)
    path = page.write(tmp_path, [STUDY], known, command="frontier")
    text = path.read_text()
    assert "- DOES NOT HOLD: 50 queries: gain at most 0.0150: 0.0500" in text
    assert "- holds: ECE at most the raw model's: 0.0100" in text
    assert (
        "| raw probabilities | 0.0100 | 0.0200 | 0.1000 | 0.9900 | 1.000 | +0.100 (0.000)" in text
    )
    assert json.loads((tmp_path / page.NAME).read_text())["studies"][0]["data"] == "digits"
    path.unlink()
    assert page.show(tmp_path).read_text() == text


@pytest.mark.parametrize(
    "name", ["labels", "top1", "rounded 1", "rounded 2", "calibrated 1", "calibrated 10"]
)
def test_whatever_is_answered_the_top_class_stays_and_rows_sum_to_one(name):
    asked = LOGITS[2000:]
    given = answers.find(name, LOGITS[:2000], CLASSES[:2000])(asked)
    assert np.array_equal(given.argmax(axis=1), asked.argmax(axis=1))
    assert np.abs(given.sum(axis=1) - 1).max() < 1e-5
    truth = softmax(asked.astype(np.float64), axis=1)
    different = len(np.unique(given, axis=0))
    if name == "labels":
        assert different == 10
    elif name.startswith("calibrated"):
        assert different <= 10 * int(name.split()[1])
    elif name == "top1":
        assert np.abs(given.max(axis=1) - truth.max(axis=1)).max() < 1e-6
    else:
        assert np.abs(given - truth).mean() < 10.0 ** -int(name.split()[1]) / 2


def test_who_knows_the_table_takes_an_answer_for_what_a_shadow_says_where_it_answers_so():
    answer = answers.find("calibrated 4", LOGITS[:2000], CLASSES[:2000])

    def again(probabilities):
        return answer(np.log(probabilities).astype(np.float32))

    shadow = softmax(LOGITS[3000:] * 1.5, axis=1)
    knowledge = Knowledge(
        defence=Parameters(scores="probabilities", defense="none"),
        prior=lambda _: shadow,
        pool=LOGITS,
        seed=0,
        answers=again,
    )
    asked = answer(LOGITS[2000:2200])
    found = recover("bayes", TransferSet(LOGITS[2000:2200], asked), knowledge).scores
    likewise = again(shadow)
    for row, said in zip(asked, found, strict=True):
        alike = (np.abs(likewise - row) < 1e-6).all(axis=1)
        if alike.sum() > 5:
            assert np.abs(said - shadow[alike].mean(axis=0)).max() < 1e-5
    assert len(np.unique(found.round(5), axis=0)) <= 40


def test_of_many_classes_rounding_leaves_the_top_one():
    flat = np.zeros((1, 150), np.float32)
    flat[0, 7] = 0.5
    given = answers.find("rounded 1", flat, None)(flat)
    assert given[0].argmax() == 7
    assert given[0].max() == pytest.approx(1)


def test_unknown_answers_are_refused():
    with pytest.raises(InputError, match="answers: expected labels, top1, rounded D or calibra"):
        answers.find("rounded", LOGITS, None)


def test_a_tuned_classifier_is_stolen_by_few_thieves_as_often_as_is_said():
    victim = Victim(data="digits", architecture="mlp", steps=0, seed=3)
    thief = Run(victim=victim, substitute="mlp", queries=480, steps=300)
    setting = {"defense": "reverse_sigmoid", "beta": 1.2, "gamma": 0.1}
    asked = answers_tried.study(thief, setting, classes=10, pool=482)
    known = Results(agreement)
    known.make_all(asked)
    runs = list(asked.needed(known))
    assert len({run.name for run in runs}) == 36
    assert {run.victim for run in runs} == {victim}
    assert {run.queries for run in runs} == {480}
    undone = [run for run in runs if run.defence]
    assert {run.recover for run in undone} == {"mixture", "tail"}
    assert all(run.defence == setting for run in undone)
