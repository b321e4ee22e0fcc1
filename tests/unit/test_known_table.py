"""Thieves of calibrated answers: what they know of the table, and whether it is the right one."""

import json
from dataclasses import replace

import numpy as np
import pytest

from load_tests.stealing import known_table
from load_tests.stealing.recovery.recover import Knowledge, recover
from load_tests.stealing.thief import Thief, suite
from load_tests.stealing.transfer_set import TransferSet
from postprocess.calibration import Calibration
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

TABLE = Calibration(
    classes=3, single=False, log_odds=(0.0,), confidence=((0.5, 0.9), (0.6, 0.8), (0.4, 0.7))
)
#: By hand: the top class with its confidence, the others with half of what is left each.
ANSWERS = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.15, 0.15, 0.7]], np.float32)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_answers_of_the_table_are_taken_in_every_type(kind):
    known_table.refuse_other_answers(TABLE, ANSWERS.astype(kind).astype(np.float32), "m")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([0.75, 0.125, 0.125], "test row 3 got class 0 with 0.7500, which the table does not have"),
        ([0.9, 0.08, 0.02], "test row 3 got class 0 with 0.9000"),
        ([0.1, 0.1, 0.8], "test row 3 got class 2 with 0.8000"),  # what another class has
    ],
)
def test_an_answer_that_is_not_the_tables_is_refused_with_the_way_out(row, said):
    answers = np.vstack([ANSWERS, [row]]).astype(np.float32)
    with pytest.raises(InputError, match=f"is not what m answers by: {said}.*or leave it out"):
        known_table.refuse_other_answers(TABLE, answers, "m")


def test_a_table_of_other_classes_or_of_yes_and_no_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a table of 3 classes, and m answers with 4"):
        known_table.refuse_other_answers(TABLE, np.full((1, 4), 0.25, np.float32), "m")
    sides = Calibration(classes=1, single=True, log_odds=(), confidence=((0.9,), (0.8,)))
    path = tmp_path / sides.file_name
    path.write_text(sides.text())
    with pytest.raises(InputError, match="is of yes or no outputs, which attacks do not learn"):
        known_table.read(str(path))
    with pytest.raises(InputError, match=r"^--calibration: [^:]*: No such file"):
        known_table.read(str(tmp_path / "absent.json"))
    assert known_table.read("") is None
    path.write_text(TABLE.text())
    assert known_table.read(str(path)) == TABLE
    assert json.loads(path.read_text())["classes"] == 3


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        (ANSWERS, True),
        (np.eye(3, dtype=np.float32), False),  # labels alone: there is no more to know
        (np.vstack([ANSWERS, [[0.6, 0.3, 0.1]]]), False),
        (np.array([[0.7, 0.3], [0.2, 0.8]]), False),  # of two classes nobody can tell
    ],
)
def test_answers_of_a_table_that_nobody_named_are_known_by_their_flat_rest(answers, wanted):
    assert known_table.looks_calibrated(answers) is wanted


def test_who_knows_the_table_gets_more_of_the_answers_than_who_takes_it_for_another():
    rng = np.random.default_rng(0)

    def victim(rows):
        return rng.dirichlet(np.full(3, 0.5), rows).astype(np.float32)

    true, shadow = victim(200), victim(4000)
    by_table = Parameters(scores="probabilities", defense="calibrated", calibration="t.json")
    reverse_sigmoid = Parameters(scores="probabilities", beta=1.5, gamma=0.2)
    knows = Knowledge(
        defence=by_table,
        prior=lambda _: shadow,
        pool=true[:, :, None],
        seed=0,
        answers=Postprocessor(by_table, table=TABLE),
    )
    answers = TransferSet(np.zeros((200, 1), np.float32), knows.copy(true))
    believes = replace(knows, defence=reverse_sigmoid, answers=None)
    errors = [
        np.abs(recover("bayes", answers, one).scores - true).mean() for one in (knows, believes)
    ]
    assert errors[0] < np.abs(answers.scores - true).mean() < errors[1]


def test_who_makes_most_of_a_table_is_tried_and_whom_equation_2_alone_tells_is_not():
    without, known = (suite(with_victim=True, with_table=one) for one in (False, True))
    names = [thief.name for thief in known]
    assert len(set(names)) == len(names)
    assert {"sample-bayes-logits", "duplicates-logits", "margin-labels-smoothed"} <= set(names)
    assert not any(thief.of_equation_2 for thief in known)
    left_out = {thief.name for thief in without} - set(names)
    assert left_out == {
        "sample-same_layer", "sample-d_dae", "sample-analytic", "sample-mixture",
        "sample-analytic-logits", "sample-mixture-logits",
    }  # fmt: skip
    assert Thief(attack="sample", recover="table") in known
