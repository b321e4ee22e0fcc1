"""Thefts side by side in processes, compared with the same in this one."""

import multiprocessing
import os
import signal
import threading
from collections import defaultdict

import numpy as np
import pytest
from scipy.special import softmax

from load_tests.asking.endpoint import EndpointError
from load_tests.stealing.crew import crew
from load_tests.stealing.substitute import Recipe
from load_tests.stealing.theft import Scene, Theft
from load_tests.stealing.thief import Thief
from load_tests.stealing.transfer_set import TransferSet
from postprocess.errors import InputError
from postprocess.parameters import Parameters

RNG = np.random.default_rng(0)
ROWS = RNG.random((120, 20), np.float32)
ANSWERS = softmax(5 * (ROWS - 0.5) @ RNG.normal(size=(20, 4)), axis=1).astype(np.float32)
ONE, TWO = TransferSet(ROWS[:40], ANSWERS[:40]), TransferSet(ROWS[40:80], ANSWERS[40:80])
PLAIN, TABLE = Thief(attack="sample"), Thief(attack="sample", recover="table")
LINEAR = Thief(attack="sample", recover="linear")


def scene(steps=30):
    return Scene(
        defence=Parameters(scores="probabilities", beta=1, gamma=0.2),
        recipe=Recipe(architecture="mlp", steps=steps),
        pool=ROWS[80:],
        test=ROWS[80:],
        truth=ANSWERS[80:],
        labels=ANSWERS[80:].argmax(axis=1),
    )


def thefts(*thieves):
    return [Theft(thieves=thieves, queries=40, taken=taken) for taken in (ONE, TWO)]


def done(jobs, given, *, steps=30, meanwhile=lambda: None):
    """Return what comes of each thief, and what each told of it; ``meanwhile`` one is at it."""
    found, told, begun = {}, defaultdict(list), threading.Event()

    def work(place, theft):
        place.begin(theft)
        for thief in theft.thieves:
            of = thief.name, theft.taken.scores[0, 0]

            def tell(*steps, of=of):
                told[of].append(steps)
                begun.set()

            found[of] = place.steal(thief, tell)

    with crew(scene(steps), work, jobs) as steal:
        for theft in given:
            steal(theft)
        assert begun.wait(0 if jobs == 1 else 300)
        meanwhile()
    return found, told


@pytest.mark.slow
def test_side_by_side_the_same_is_stolen_as_one_after_the_other(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    here, _ = done(1, thefts(PLAIN, TABLE))
    there, told = done(2, thefts(PLAIN, TABLE))
    assert len(there) == 4
    assert there == {name: pytest.approx(one, rel=1e-3) for name, one in here.items()}
    assert all(steps[-1] == (30, 30) for steps in told.values())
    assert done(2, thefts(PLAIN, TABLE))[0] == there  # to the last digit
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_what_a_thief_cannot_do_is_said_as_in_this_process_and_nothing_is_left():
    for jobs in (1, 2):
        with pytest.raises(InputError, match="--recover linear: needs --victim, to fit it on true"):
            done(jobs, thefts(PLAIN, LINEAR))
    assert not multiprocessing.active_children()


def killed():
    for each in multiprocessing.active_children():
        os.kill(each.pid, signal.SIGKILL)


def interrupted():
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(
    ("meanwhile", "error", "said"),
    [
        (killed, EndpointError, "sample: a process that trains ended early: exit code -9; if memory"
                                " ran out, give fewer --jobs"),
        (interrupted, KeyboardInterrupt, None),
    ],
)  # fmt: skip
def test_whatever_ends_a_training_ends_all_of_them(meanwhile, error, said):
    with pytest.raises(error, match=said):
        done(2, thefts(PLAIN), steps=10**6, meanwhile=meanwhile)
    assert not multiprocessing.active_children()
