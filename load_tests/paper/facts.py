"""What the paper says, held against our runs: each reproduces, does not, or was not run."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from exporters.training.train import BATCH
from load_tests.paper import published
from load_tests.paper.beyond import Beyond, times_said
from load_tests.paper.measured import mean, said
from load_tests.paper.plan import ATTACKS_COMPARED
from load_tests.paper.tables import TITLES
from load_tests.paper.thieves import LABELS_ONLY
from load_tests.runs.criterion import PILOT, stops_enough
from load_tests.stealing import verdict

#: How near chance "at chance" is.
NEAR = 0.10


class Fact(NamedTuple):
    """One statement."""

    holds: bool | None  #: None: not run
    paper: str  #: what the paper says
    measured: str  #: the numbers that decide
    why: str = ""  #: why it does not hold, where it does not


def facts(tables: Beyond) -> list[Fact]:
    """Return every statement of the paper that our runs can decide."""
    return [
        *_levels(tables),
        *_drops(tables),
        *_attacks(tables),
        *(find(tables, data) for data in tables.scale.labels_on for find in (_once, _many_times)),
        *(_inversion(tables, data) for data in tables.scale.recovery_on),
        _cap(tables),
    ]


def _levels(tables: Beyond) -> Iterator[Fact]:
    scale, plan = tables.scale, tables.plan
    for data in scale.data:
        if data not in published.TABLE_1:
            continue
        level, _ = published.TABLE_1[data]
        paper = f"{TITLES[data]}: S(M) agrees with M on {level:.2f} of the images"
        once = tables.stolen(plan.repeats(data, {}))
        long = tables.stolen(plan.converged(data, {}, {}))
        if math.isnan(once):
            yield Fact(None, paper, "")
            continue
        measured = f"{once:.3f} with {scale.queries:,} queries in {scale.steps:,} steps of {BATCH}"
        if not math.isnan(long):
            measured += f", {long:.3f} in {scale.kept_steps:,} steps"
        why = "so few steps do not train this network; of the same queries more can be learnt"
        yield Fact(once >= level - NEAR / 2, paper, measured, why)


def _drops(tables: Beyond) -> Iterator[Fact]:
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
            drop = mean(undefended) - mean(stolen)
            measured = f"{drop * 100:.1f} points with {said(setting)}"
            pilot = [plan.base(data, one, seed=PILOT) for one in ({}, setting)]
            known = tables.values(pilot, "stolen", "accuracy")
            why = f"on the pilot seed, by which it was chosen, {(known[0] - known[-1]) * 100:.1f}"
            yield Fact(stops_enough(drop, 0) == hurts, paper, measured, why)


def _attacks(tables: Beyond) -> Iterator[Fact]:
    plan, scale = tables.plan, tables.scale
    data = TITLES[scale.attacks_on]
    stolen = {
        attack: [tables.stolen(runs) for runs in plan.attacks(attack).values()]
        for attack in ATTACKS_COMPARED
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
    as_often = [tables.stolen(runs) for runs in plan.as_often().values()]
    real = _list(scale.attack_samples)
    yield Fact(
        all(j <= s for j, s in zip(stolen["jacobian"], stolen["sample"], strict=True)),
        f"{data}: Jacobian does not beat Sample with the same real images",
        f"agreement {_list(stolen['jacobian'])} with {queries} queries, Sample "
        f"{_list(stolen['sample'])} with the {real} real ones alone, {scale.attack_steps:,} steps "
        "each",
        "Jacobian asks more often, and what it makes is answered by M itself",
    )
    if not any(math.isnan(value) for value in as_often):
        yield Fact(
            all(j <= s for j, s in zip(stolen["jacobian"], as_often, strict=True)),
            f"{data}: Jacobian does not beat Sample with as many queries",
            f"agreement {_list(stolen['jacobian'])} with {queries} queries from {real} real "
            f"images, Sample {_list(as_often)} with as many, all real",
        )


def _once(tables: Beyond, data: str) -> Fact:
    plan, shown = tables.plan, tables.scale.labels_queries
    paper = f"{TITLES[data]}, images shown once, as the paper counts: labels only needs 4 times as "
    paper += "many as probabilities"
    agreements, labels = (
        [tables.stolen(plan.shown(data, at, way)) for at in shown] for way in ({}, LABELS_ONLY)
    )
    if any(math.isnan(value) for value in (*agreements, *labels)):
        return Fact(None, paper, "")
    needed = verdict.queries_needed(list(zip(shown, labels, strict=True)), agreements[0])
    times = math.inf if needed is None else needed / shown[0]
    return Fact(
        2 <= times <= shown[-1] / shown[0],
        paper,
        f"{times_said(times, shown[-1] / shown[0])} for the {agreements[0]:.3f} of {shown[0]:,} "
        f"images with probabilities; with {_list(shown)} images {_list(agreements)} against "
        f"{_list(labels)}",
        "what a thief lacks who sees each image once is steps, not answers: see the next line",
    )


def _many_times(tables: Beyond, data: str) -> Fact:
    scale, kept = tables.scale, tables.scale.labels_kept
    paper = f"{TITLES[data]}, few images gone through again and again: labels only needs 4 times "
    paper += "as many queries as probabilities, or more"
    steps, most = tables.steps_looked_at(data), kept[-1] / kept[0]
    level = tables.stolen(tables.plan.kept(data, kept[0], {}))
    labels = tables.stolen(tables.plan.kept(data, kept[-1], LABELS_ONLY))
    times = [tables.times(data, kept[0], at) for at in steps]
    if not steps or most < 4 or any(map(math.isnan, (*times, level))):
        return Fact(None, paper, "")
    told = ", ".join(times_said(one, most) for one in times)
    sure = mean(tables.values(tables.plan.kept(data, kept[0], {}), "victim", "confidence"))
    return Fact(
        times[-1] >= 4,
        paper,
        f"after {_list(steps)} steps {told}; {kept[0]:,} queries with probabilities come to "
        f"{level:.3f} after {scale.kept_steps:,} steps, {kept[-1]:,} with labels only to "
        f"{labels:.3f}; M gives its top class {sure:.2f} on average",
        "a label is learnt in few steps, a probability in many: what it is worth hangs on how long "
        "is trained",
    )


def _inversion(tables: Beyond, data: str) -> Fact:
    plan = tables.plan
    paper = f"{TITLES[data]}: linear regression recovers some of the probabilities, an MLP more, "
    paper += "neither all"
    setting = plan.paper_setting(data)
    if setting is None:
        return Fact(None, paper, "")
    beta = min(tables.scale.magnitudes, key=lambda one: abs(one - setting["beta"]))
    kl = "kl_nats_from_victim"
    runs = [plan.recovery(data, name, beta, setting["gamma"]) for name in ("linear", "mlp")]
    linear, mlp = (mean(tables.values(some, "recovered", kl)) for some in runs)
    protected = mean(tables.values(runs[0], "asked", kl))
    if math.isnan(linear + mlp + protected):
        return Fact(None, paper, "")
    return Fact(
        0 < mlp < linear < protected,
        paper,
        f"KL(M‖P) {protected:.2f}, after linear regression {linear:.2f}, after the MLP {mlp:.2f} "
        f"nats with beta {beta:g}, gamma {setting['gamma']:g}",
    )


def _cap(tables: Beyond) -> Fact:
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


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:,}" if isinstance(value, int) else f"{value:.3f}" for value in values)
