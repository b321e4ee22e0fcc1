import json
import time
from types import SimpleNamespace

import numpy as np
import pytest

from load_tests.stealing import attack_record
from load_tests.stealing.attack_record import AttackRecord
from load_tests.stealing.collect import Manner, collect
from load_tests.stealing.transfer_set import Queries, TransferSet
from load_tests.stealing.transfer_set_file import TransferSetFile
from load_tests.users import plan_process
from postprocess.errors import InputError

RECORD = AttackRecord(
    attack="sample", data="digits", data_dir=None, split_seed=0, seed=3, queries=20,
    url="127.0.0.1:8001", model="digits",
)  # fmt: skip


@pytest.fixture
def thief_user(unpatched_locust):
    from load_tests.users import thief_user

    return thief_user


def plan_of_two_rounds(learnt):
    images = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1)
    learnt.append((yield Queries(images, np.arange(10))))
    learnt.append((yield Queries(images[:3])))


def test_a_plan_in_batches_asks_the_same_and_learns_the_same(tmp_path):
    asked, learnt, moments, pause_s = [], [], [], 0.01

    def query(images):
        asked.append(images.ravel().tolist())
        moments.append(time.monotonic())
        return images.reshape(-1, 1)

    pool = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1)
    file = TransferSetFile(tmp_path, pool)
    manner = Manner(batch_size=4, pause_s=pause_s)
    collect(plan_of_two_rounds(learnt), query, manner=manner, file=file)
    assert [len(images) for images in asked] == [4, 4, 2, 3]
    rows = (tmp_path / "transfer_set.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1].split(":")[0] for row in rows] == ["pool"] * 10 + ["made"] * 3
    assert [pixel for images in asked[:3] for pixel in images] == list(range(10))
    assert [len(answers) for answers in learnt] == [10, 3]
    assert learnt[0].scores.ravel().tolist() == list(range(10))
    assert np.diff(moments).min() >= pause_s


def test_a_thief_gets_the_lowest_number_that_no_living_thief_has(thief_user):
    thieves = [SimpleNamespace(greenlet=SimpleNamespace(dead=False)) for _ in range(5)]
    numbers = thief_user._Numbers()
    assert [numbers.take(thief) for thief in thieves[:3]] == [0, 1, 2]
    thieves[1].greenlet.dead = True
    assert [numbers.take(thief) for thief in thieves[3:]] == [1, 3]


def test_a_thief_keeps_probabilities_and_none_that_are_not_finite(thief_user, monkeypatch):
    answers = np.array([[1, 3], [2, 2]], np.float32)
    monkeypatch.setattr(thief_user.TritonUser, "ask", lambda self, images: answers)
    thief = thief_user.ThiefUser.__new__(thief_user.ThiefUser)
    assert np.allclose(thief.ask(None), [[0.1192, 0.8808], [0.5, 0.5]], atol=1e-4)
    answers[1, 0] = np.nan
    with pytest.raises(InputError, match="scores: expected finite numbers"):
        thief.ask(None)


def test_an_attack_goes_on_in_its_folder_and_another_is_refused(tmp_path):
    folder = tmp_path / "sample-0-0"
    RECORD.claim(folder)
    RECORD.claim(folder)
    assert json.loads((folder / "attack.json").read_text()) == vars(RECORD)
    assert attack_record.read(folder) == RECORD
    other = AttackRecord(**vars(RECORD) | {"seed": 4})
    with pytest.raises(InputError, match="sample-0-0: holds an attack with seed 3, not 4; choose"):
        other.claim(folder)


def test_a_transfer_set_of_unknown_origin_is_not_added_to(tmp_path):
    (tmp_path / "transfer_set.csv").write_text("")
    with pytest.raises(InputError, match="holds other files; choose another folder"):
        RECORD.claim(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"attack": "sample"}'])
def test_a_record_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "attack.json").write_text(text)
    with pytest.raises(InputError, match="expected the record of an attack"):
        attack_record.read(tmp_path)


@pytest.mark.slow
def test_a_plan_in_another_process_asks_what_it_asks_here(tmp_path):
    RECORD.claim(tmp_path)
    here, elsewhere = RECORD.plan(), plan_process.plan_elsewhere(tmp_path)
    expected, asked = next(here), next(elsewhere)
    assert np.array_equal(asked.rows, expected.rows)
    assert np.array_equal(asked.pool_index, expected.pool_index)
    with pytest.raises(StopIteration):
        elsewhere.send(TransferSet(asked.rows, np.ones((20, 10), np.float32)))


def test_a_process_that_fails_is_told_from_a_plan_that_ends(tmp_path, capfd):
    AttackRecord(**vars(RECORD) | {"queries": 100_000}).claim(tmp_path)
    with pytest.raises(plan_process.PlanError, match="the attack's process failed"):
        next(plan_process.plan_elsewhere(tmp_path))
    assert "query budget: expected 1 to 482 rows, got 100000" in capfd.readouterr().err


def test_the_files_of_a_data_set_may_move(tmp_path):
    folder = tmp_path / "sample-0-0"
    RECORD.claim(folder)
    moved = AttackRecord(**vars(RECORD) | {"data_dir": "/elsewhere"})
    moved.claim(folder)
    assert attack_record.read(folder) == moved
