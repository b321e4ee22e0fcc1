"""The search for a setting, on made-up thieves: what it finds, and by how many trainings."""

from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper
from victims import graph_file

from load_tests.data.drawn import draw_from
from load_tests.runs.run import Run, Victim
from load_tests.tune import candidates as settings
from load_tests.tune.candidates import Candidate
from load_tests.tune.recorded import OnnxVictim, record
from load_tests.tune.search import Search
from load_tests.tune.tuning import Tuning, Wanted
from postprocess.errors import InputError
from postprocess.parameters import Parameters

NOW = Parameters(scores="logits", beta=1.5, gamma=0.2, margin=0.01)
BASE, DROP = 0.95, 0.20


def logits(rows=400, classes=10):
    return (np.random.default_rng(0).normal(size=(rows, classes)) * 3).astype(np.float32)


def make(**changes):
    grid = {
        "betas": settings.BETAS, "gammas": settings.GAMMAS, "margins": (0.01,), "decimals": (None,)
    }  # fmt: skip
    return settings.make(logits(), NOW, **{**grid, **changes})


def accuracies(candidates, seed):
    """Thieves who fall off below some lead of the top class, each with luck of its own."""
    rng = np.random.default_rng(seed)
    threshold, slope = 10 ** rng.uniform(-2.7, -0.8), rng.uniform(0.05, 0.6)
    return {
        one: float(
            np.clip(
                BASE
                - 0.3 * max(0, (threshold - one.lead) / (threshold * slope))
                + rng.normal() * 0.03,
                0.1,
                BASE,
            )
        )
        for one in candidates
    }


def searched(candidates, accuracy, jobs=1):
    known = {}
    search = Search(candidates, known.get, lambda result: BASE - result["accuracy"] >= DROP)
    while following := search.next(jobs):
        assert len(following) <= jobs
        assert not set(following) & set(known)
        for one in following:
            known[one] = {"accuracy": accuracy[one]}
    return search.best(), len(known)


def test_candidates_are_every_combination_with_what_it_leaves():
    made = make(betas=(0.5, 1.5), gammas=(0.2,), decimals=(None, 2))
    assert [(one.beta, one.decimals) for one in made] == [
        (0.5, None), (1.5, None), (0.5, 2), (1.5, 2)
    ]  # fmt: skip
    weak, strong, *_ = made
    assert weak.weaker_than(strong)
    assert not strong.weaker_than(weak)
    assert not made[0].weaker_than(made[3])
    assert 0 < strong.cosine < weak.cosine < 1
    assert 0 < strong.lead < weak.lead


@pytest.mark.parametrize("probabilities", [True, False])
def test_a_classifier_without_finite_scores_for_the_images_is_refused(tmp_path, probabilities):
    graph_file(
        tmp_path / "m.onnx",
        [
            helper.make_node("Flatten", ["image"], ["pixels"]),
            helper.make_node("Div", ["pixels", "pixels"], ["scores"]),  # dark pixels: 0 / 0
        ],
        [("image", TensorProto.FLOAT, ("N", 8, 8, 1))],
        [("scores", TensorProto.FLOAT, ("N", 64))],
    )
    classifier = OnnxVictim(
        tmp_path / "m.onnx", (tmp_path / "m.onnx").read_bytes(), "scores", probabilities
    )
    victim = Victim(data="digits", architecture="simple", steps=0, seed=0)
    with pytest.raises(InputError, match="output scores: is not finite for all"):
        record(classifier, draw_from("digits", None, 0), tmp_path / "victims", victim)
    assert not (tmp_path / "victims").exists()


def test_a_value_that_the_defence_refuses_is_refused():
    with pytest.raises(InputError, match="parameter beta: expected a number"):
        make(betas=(-1.0,))


@pytest.mark.parametrize("jobs", [1, 2])
def test_few_trainings_find_what_a_grid_of_25_finds(jobs):
    candidates = make()
    grid = [one for one in candidates if one.beta in (0.8, 0.9, 1.0, 1.2, 1.5)]
    assert len(grid) == 25
    trainings, worse = [], 0
    for seed in range(60):
        accuracy = accuracies(candidates, seed)
        found, count = searched(candidates, accuracy, jobs)
        trainings.append(count)
        passing = [one.cosine for one in grid if BASE - accuracy[one] >= DROP]
        if passing and (found is None or found.cosine < max(passing) - 1e-9):
            worse += 1
    assert max(trainings) <= 8 + 2 * (jobs - 1)
    assert worse <= 2


def test_where_none_passes_the_strongest_were_tried():
    candidates = make()
    found, count = searched(candidates, dict.fromkeys(candidates, BASE))
    assert found is None
    assert count <= 8


def test_where_all_pass_the_one_that_keeps_most_is_found():
    candidates = make()
    found, _ = searched(candidates, dict.fromkeys(candidates, 0.1))
    assert found == max(candidates, key=lambda one: one.cosine)


def test_a_search_that_goes_on_repeats_nothing():
    candidates = make()
    accuracy = accuracies(candidates, 5)
    known = {}
    passes = lambda result: BASE - result["accuracy"] >= DROP  # noqa: E731
    order = []
    while following := Search(candidates, known.get, passes).next(1):  # a new one every time
        order += following
        known |= {one: {"accuracy": accuracy[one]} for one in following}
    assert len(set(order)) == len(order)
    assert Search(candidates, known.get, passes).best() == searched(candidates, accuracy)[0]


def test_a_front_is_halved_whatever_is_equal():
    same = [Candidate(beta, 0.2, 0.01, None, 0.5, 0.2, 0.1) for beta in (1.0, 1.1, 1.2)]
    found, count = searched(same, dict.fromkeys(same, 0.1))
    assert (found in same, count) == (True, 1)


@pytest.mark.parametrize(
    ("wanted", "stolen", "meets"),
    [
        (Wanted(), {"accuracy": 0.75, "agreement": 0.9}, True),
        (Wanted(), {"accuracy": 0.76, "agreement": 0.1}, False),
        (Wanted(criterion="frontier", max_stolen=0.5), {"accuracy": 0.9, "agreement": 0.5}, True),
        (Wanted(criterion="frontier", max_stolen=0.5), {"accuracy": 0.1, "agreement": 0.6}, False),
        (Wanted(criterion="frontier", min_cosine=0.5), {"accuracy": 0.9, "agreement": 0.9}, True),
    ],
)
def test_a_recommended_setting_that_stops_too_little_is_told(wanted, stolen, meets):
    (candidate,) = make(betas=(1.0,), gammas=(0.2,))
    victim = Victim(data="digits", architecture="simple", steps=0, seed=0)
    thief = Run(victim=victim, substitute="simple", queries=10, steps=10)
    undefended = {"accuracy": BASE, "agreement": 0.99}
    runner = SimpleNamespace(known=lambda run: {"stolen": undefended if run == thief else stolen})
    tuning = Tuning([candidate], thief, {"defense": "reverse_sigmoid"}, runner, jobs=1, expect=None)
    assert tuning.meets(wanted, candidate) is meets
