"""The paper's plan: what is chosen, and what a run's file says."""

import json
from dataclasses import replace

import pytest

from load_tests.paper.grids import Candidate, choose
from load_tests.paper.plan import Plan
from load_tests.paper.run import Run, Victim
from load_tests.paper.scales import SCALES
from postprocess.errors import InputError

VICTIM = Victim(data="digits", architecture="simple", steps=200, seed=0)
DEFENCE = {"defense": "reverse_sigmoid", "beta": 1.0, "gamma": 0.4}


def candidate(cosine, accuracy):
    return Candidate({"beta": cosine}, cosine, accuracy)


def test_the_papers_criterion_takes_the_highest_cosine_among_those_that_stop_enough():
    tried = [candidate(0.9, 0.75), candidate(0.7, 0.6), candidate(0.5, 0.3)]
    assert choose(tried, undefended=0.9).cosine == 0.7
    assert choose(tried, undefended=0.95).cosine == 0.9
    assert choose(tried, undefended=0.45).cosine == 0.5  # none does: the largest drop


def test_a_runs_file_says_all_that_decides_it():
    run = Run(victim=VICTIM, defence=DEFENCE, substitute="simple", queries=320, steps=60)
    assert Run.from_json(json.loads(json.dumps(run.to_json()))) == run
    changes = [
        {"seed": 1}, {"steps": 61}, {"labels_only": True}, {"defence": {**DEFENCE, "beta": 1.1}},
        {"victim": replace(VICTIM, seed=1)}, {"judged_on": 10},
    ]  # fmt: skip
    names = {run.but(**change).name for change in changes}
    assert len(names - {run.name}) == len(changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps of at least 1"),
        ({"substitute": "vgg"}, "unknown architecture 'vgg'"),
        ({"loss": "hinge"}, "--loss: expected"),
        ({"defence": {"defense": "reverse_sigmoid"}}, "parameter beta"),
        ({"sedd": 1}, "run: expected an object with"),
    ],
)
def test_a_file_that_describes_no_run_is_refused(changes, said):
    good = Run(victim=VICTIM, substitute="simple", queries=320, steps=60).to_json()
    with pytest.raises(InputError, match=said):
        Run.from_json({**good, **changes})


@pytest.mark.parametrize("name", SCALES)
def test_a_plan_with_no_results_asks_for_its_grids_first(name):
    plan = Plan(SCALES[name], lambda run: None)
    runs = {run.name: run for run in plan.needed("all")}
    grids = [
        run.name
        for data in plan.scale.data
        for capped in (False, True)
        for run in plan.grid(data, "reverse_sigmoid", capped=capped)
    ]
    assert set(grids) <= set(runs)
    assert all(Run.from_json(json.loads(json.dumps(run.to_json()))) for run in runs.values())
