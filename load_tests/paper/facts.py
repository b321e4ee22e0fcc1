"""What the paper says, held against our runs: each reproduces, does not, or was not run."""

import math
import statistics
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from exporters.training.train import BATCH
from load_tests.paper.tables import TITLES, Tables, said
from load_tests.paper.thieves import LABELS_ONLY
from load_tests.runs.criterion import stops_enough
from load_tests.stealing import verdict

#: How near chance "at chance" is.
NEAR = 0.10
#: Two agreements this near are the same: see the noise that the report states.
NOISE = 0.03


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
            stolen = tables.values(plan.repeats(data, setting), "stolen", "accuracy")
            if not stolen or not undefended:
                yield Fact(None, paper, "")
                continue
            before, after = _mean(undefended), _mean(stolen)
            measured = f"{(before - after) * 100:.1f} points with {said(setting)}"
            yield Fact(stops_enough(before, after) == hurts, paper, measured)


def _attacks(tables: Tables) -> Iterator[Fact]:
    plan, scale = tables.plan, tables.scale
    data = TITLES[scale.attacks_on]
    stolen = {
        attack: [
            _mean(tables.values(runs, "stolen", "agreement"))
            for runs in plan.attacks(attack).values()
        ]
        for attack in ("sample", "random", "jacobian")
    }
    if any(math.isnan(value) for values in stolen.values() for value in values):
        yield Fact(None, f"{data}: Random is at chance, Jacobian does not beat Sample", "")
        return
    chance = 0.1  # of ten classes, as every scale's attack study has
    queries = _list(samples * scale.attack_times for samples in scale.attack_samples)
    yield Fact(
        max(stolen["random"]) <= chance + NEAR,
        f"{data}: Random is at chance ({chance:g})",
        f"agreement {_list(stolen['random'])} with {queries} queries",
    )
    as_often = [
        _mean(tables.values(runs, "stolen", "agreement")) for runs in plan.as_often().values()
    ]
    yield Fact(
        all(j <= s for j, s in zip(stolen["jacobian"], stolen["sample"], strict=True)),
        f"{data}: Jacobian does not beat Sample with the same real images",
        f"agreement {_list(stolen['jacobian'])} with {queries} queries, Sample "
        f"{_list(stolen['sample'])} with the {_list(scale.attack_samples)} real ones alone"
        f" and {_list(as_often)} with as many queries, all real",
    )


def _labels(tables: Tables) -> Iterator[Fact]:
    plan, shown = tables.plan, tables.scale.labels_queries
    for data in tables.scale.labels_on:
        paper = f"{TITLES[data]}: labels only needs about 4 times the queries that probabilities"
        paper += " need"
        kept = tables.scale.labels_kept[-1]
        agreements, labels = (
            [_mean(tables.values(plan.shown(data, at, way), "stolen", "agreement")) for at in shown]
            for way in ({}, LABELS_ONLY)
        )
        again = [plan.kept(data, kept, way) for way in ({}, LABELS_ONLY)]
        often = [_mean(tables.values(runs, "stolen", "agreement")) for runs in again]
        sure = _mean(tables.values(plan.shown(data, shown[0], {}), "victim", "confidence"))
        if any(math.isnan(value) for value in (*agreements, *labels, *often, sure)):
            yield Fact(None, paper, "")
            continue
        passes = tables.scale.kept_steps * BATCH / kept
        needed = verdict.queries_needed(list(zip(shown, labels, strict=True)), agreements[0])
        times = math.inf if needed is None else needed / shown[0]
        told = f"more than {shown[-1] / shown[0]:g}" if needed is None else f"{times:.1f}"
        enough = often[0] >= agreements[-1] - NOISE
        lacking = ": what they lacked is steps, not queries" if enough else ""
        yield Fact(
            2 <= times <= shown[-1] / shown[0],
            paper,
            f"agreement {agreements[0]:.3f} takes {shown[0]:,} images with probabilities and "
            f"{told} times as many with labels only; with {_list(shown)} images {_list(agreements)}"
            f" against {_list(labels)}; with {kept:,} images, gone through "
            f"{passes:.0f} times instead of once, {often[0]:.3f} against {often[1]:.3f}{lacking}; "
            f"M gives its top class {sure:.2f} on average",
        )


def _inversions(tables: Tables) -> Iterator[Fact]:
    for data in tables.scale.recovery_on:
        yield _inversion(tables, data)


def _inversion(tables: Tables, data: str) -> Fact:
    plan = tables.plan
    paper = f"{TITLES[data]}: linear regression recovers some of the probabilities, an MLP more, "
    paper += "neither all"
    setting = plan.paper_setting(data)
    if setting is None:
        return Fact(None, paper, "")
    beta = min(tables.scale.magnitudes, key=lambda one: abs(one - setting["beta"]))
    kl = "kl_nats_from_victim"
    runs = [plan.recovery(data, name, beta, setting["gamma"]) for name in ("linear", "mlp")]
    linear, mlp = (_mean(tables.values(some, "recovered", kl)) for some in runs)
    protected = _mean(tables.values(runs[0], "asked", kl))
    if math.isnan(linear + mlp + protected):
        return Fact(None, paper, "")
    return Fact(
        0 < mlp < linear < protected,
        paper,
        f"KL(M‖P) {protected:.2f}, after linear regression {linear:.2f}, after the MLP {mlp:.2f} "
        f"nats with beta {beta:g}, gamma {setting['gamma']:g}",
    )


def _cap(tables: Tables) -> Fact:
    ours = (
        "Not the paper's, ours: with the cap on, P agreement is exactly 1 and P accuracy that of "
        "M, in every run"
    )
    runs = tables.capped()
    agreements = tables.values(runs, "protected", "agreement")
    lost = [
        victim - protected
        for protected, victim in zip(
            tables.values(runs, "protected", "accuracy"),
            tables.values(runs, "victim", "accuracy"),
            strict=True,
        )
    ]
    if not runs:
        return Fact(None, ours, "")
    return Fact(
        set(agreements) == {1.0} and set(lost) == {0.0},
        ours,
        f"{len(runs)} runs, agreement at least {min(agreements):.4f}, accuracy lost at most "
        f"{max(0.0, *lost):.4f}",
    )


def _mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:,}" if isinstance(value, int) else f"{value:.3f}" for value in values)
