"""What the paper says, held against our runs: each reproduces, does not, or was not run."""

import math
import statistics
from collections.abc import Iterator
from typing import NamedTuple

from load_tests import red_team
from load_tests.paper.grids import DROP
from load_tests.paper.plan import LABELS_TIMES
from load_tests.paper.tables import TITLES, Tables, said

#: How near chance "at chance" is.
NEAR = 0.10


class Fact(NamedTuple):
    """One statement."""

    holds: bool | None  #: None: not run
    paper: str  #: what the paper says
    measured: str  #: the numbers that decide


def facts(tables: Tables) -> list[Fact]:
    """Return every statement of the paper that our runs can decide."""
    return [
        *_drops(tables),
        *_attacks(tables),
        *_labels(tables),
        *_inversions(tables),
        _cap(tables),
    ]


def _drops(tables: Tables) -> Iterator[Fact]:
    plan = tables.plan
    for data in tables.scale.data:
        undefended = tables.values(plan.repeats(data, {}), "stolen", "accuracy")
        for defence, hurts in (("reverse_sigmoid", True), ("sine", False)):
            name = "Reverse Sigmoid" if hurts else "Sine"
            paper = f"{TITLES[data]}: {name} takes {'at least' if hurts else 'less than'} 20 points"
            paper += " from the naive thief's accuracy"
            setting = plan.chosen(data, defence, capped=False)
            runs = [] if setting is None else plan.repeats(data, setting)
            stolen = tables.values(runs, "stolen", "accuracy")
            if not stolen or not undefended:
                yield Fact(None, paper, "")
                continue
            drop = _mean(undefended) - _mean(stolen)
            measured = f"{drop * 100:.1f} points with {said(setting)}"
            yield Fact((drop >= DROP) == hurts, paper, measured)


def _attacks(tables: Tables) -> Iterator[Fact]:
    plan, scale = tables.plan, tables.scale
    data = TITLES[scale.attacks_on]
    stolen = {
        attack: [
            _mean(tables.values([plan.attack(attack, queries)], "stolen", "agreement"))
            for queries in scale.attack_budgets
        ]
        for attack in ("sample", "random", "jacobian")
    }
    if any(math.isnan(value) for values in stolen.values() for value in values):
        yield Fact(None, f"{data}: Random is at chance, Jacobian does not beat Sample", "")
        return
    chance = 1 / (100 if scale.attacks_on == "cifar100" else 10)
    told = " and ".join(f"{value:.3f}" for value in stolen["random"])
    yield Fact(
        max(stolen["random"]) <= chance + NEAR,
        f"{data}: Random is at chance ({chance:g})",
        f"agreement {told} with {_list(scale.attack_budgets)} queries",
    )
    beaten = [f"{j:.3f} against {s:.3f}" for j, s in
              zip(stolen["jacobian"], stolen["sample"], strict=True)]  # fmt: skip
    yield Fact(
        all(j <= s for j, s in zip(stolen["jacobian"], stolen["sample"], strict=True)),
        f"{data}: Jacobian does not beat Sample",
        f"{', '.join(beaten)} with {_list(scale.attack_budgets)} queries",
    )


def _labels(tables: Tables) -> Iterator[Fact]:
    plan = tables.plan
    paper = f"{TITLES[tables.scale.recovery_on]}: labels only needs about {LABELS_TIMES} times the"
    paper += " queries that probabilities need"
    curves = []
    for changes in ({}, {"labels_only": True}):
        result = plan.known(plan.longer(None, dict(changes)))
        if result is None:
            yield Fact(None, paper, "")
            return
        curves.append([(point["queries"], point["agreement"]) for point in result["curve"]])
    probabilities, labels = curves
    queries, level = probabilities[len(probabilities) // 2 - 1]  # with room for four times more
    needed = red_team.queries_needed(labels, level)
    measured = f"agreement {level:.3f} takes {queries} images with probabilities, "
    measured += "more than were shown" if needed is None else f"{needed:.0f}"
    measured += " with labels only"
    times = None if needed is None else needed / queries
    if times is not None:
        measured += f": {times:.1f} times"
    yield Fact(times is not None and 2 <= times <= 2 * LABELS_TIMES, paper, measured)


def _inversions(tables: Tables) -> Iterator[Fact]:
    plan = tables.plan
    data = tables.scale.recovery_on
    paper = f"{TITLES[data]}: linear regression recovers some of the probabilities, an MLP more, "
    paper += "neither all"
    setting = plan.paper_setting(data)
    if setting is None:
        yield Fact(None, paper, "")
        return
    beta = min(tables.scale.magnitudes, key=lambda one: abs(one - setting["beta"]))
    runs = [plan.recovery(name, beta, setting["gamma"]) for name in ("linear", "mlp")]
    recovered = tables.values(runs, "recovered", "kl_nats_from_victim")
    if len(recovered) < len(runs):
        yield Fact(None, paper, "")
        return
    (protected,) = tables.values(runs[:1], "protected", "kl_nats_from_victim")
    linear, mlp = recovered
    yield Fact(
        0 < mlp < linear < protected,
        paper,
        f"KL(M‖P) {protected:.2f}, after linear regression {linear:.2f}, after the MLP {mlp:.2f} "
        f"nats with beta {beta:g}, gamma {setting['gamma']:g}",
    )


def _cap(tables: Tables) -> Fact:
    paper = "With the cap on, P agreement is exactly 1 and P accuracy that of M, in every run"
    runs = tables.capped()
    agreements = tables.values(runs, "protected", "agreement")
    costs = [
        protected - victim
        for protected, victim in zip(
            tables.values(runs, "protected", "accuracy"),
            tables.values(runs, "victim", "accuracy"),
            strict=True,
        )
    ]
    if not runs:
        return Fact(None, paper, "")
    holds = set(agreements) == {1.0} and set(costs) == {0.0}
    return Fact(
        holds,
        paper,
        f"{len(runs)} runs, agreement at least {min(agreements):.4f}, accuracy lost at most "
        f"{max(0.0, -min(costs)):.4f}",
    )


def _mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _list(values: tuple[int, ...]) -> str:
    return " and ".join(f"{value:,}" for value in values)
