"""The runs that each table and figure needs, some of them known only when others are done."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from exporters.training.train import BATCH
from load_tests.paper.grids import NAMES, DefenceSettings
from load_tests.paper.scales import Scale
from load_tests.paper.thieves import (
    AGAINST_HARDENED,
    FEW,
    HARDENED,
    HONEST,
    LABELS_ONLY,
    TABLE_4,
    Changes,
    Difference,
)
from load_tests.runs.criterion import PILOT, Tried, choose, stops_enough
from load_tests.runs.run import HELD_OUT, Known, Run, Victim

#: The attacks of Figure 2.
ATTACKS_COMPARED = ("sample", "random", "jacobian")


class PaperPlan:
    """The runs of one scale.

    A setting is chosen on the pilot seed, of which nothing is told; what is told of is a list of
    runs, one for each seed, and empty while its setting has not been chosen.
    """

    def __init__(self, scale: Scale, known: Known) -> None:
        """Take the scale, and where results are looked up."""
        self.scale, self.known = scale, known
        self._chosen: dict[tuple[str, str, bool], DefenceSettings] = {}

    def needed(self, what: str) -> Iterator[Run]:
        """Yield what a part needs, as far as results so far can tell; some may be made already.

        Args:
            what: one of ``PARTS``, or ``all``.
        """
        for name in PARTS if what == "all" else (what,):
            yield from PARTS[name](self)

    # -- the defence study: Tables 1 and 2, Figure 5 ------------------------------------------

    def base(self, data: str, defence: DefenceSettings | None = None, *, seed: int) -> Run:
        """Return the thief of the defence study, who learns from all that Sample asks about."""
        scale = self.scale
        victim = Victim(
            data=data,
            architecture=scale.architecture,
            steps=scale.steps_of_victim(data),
            seed=scale.seed_of_victim(seed),
        )
        return Run(
            victim=victim,
            defence=defence or {},
            substitute=scale.architecture,
            queries=scale.queries,
            steps=scale.steps,
            seed=seed,
            judged_on=scale.judged_on,
        )

    def grid(self, data: str, defence: str, *, capped: bool) -> list[Run]:
        """Return the runs among which a setting is chosen, as far as results so far can tell.

        With ``halving``, what each setting leaves of the answers is looked at first, without a
        thief. Then, of the settings by cosine, the middle one of those that may still be the
        best to pass is trained on: all of a lower cosine are taken to pass where it does, none of
        a higher one where it does not.
        """
        settings = self.scale.grid.settings(defence, capped=capped)
        runs = [self.base(data, setting, seed=PILOT) for setting in settings]
        if not self.scale.halving:
            return runs
        undefended = self.known(self.base(data, seed=PILOT))
        if undefended is None:
            return []
        looks = [run.but(substitute="", queries=0, steps=0) for run in runs]
        seen = [self.known(look) for look in looks]
        cosines = [look["protected"]["cosine"] for look in seen if look is not None]
        if len(cosines) < len(runs):
            return looks
        order = sorted(zip(cosines, runs, strict=True), key=lambda pair: -pair[0])
        tried: list[Run] = []
        first, behind = 0, len(order)
        while first < behind:
            middle = (first + behind) // 2
            tried.append(order[middle][1])
            result = self.known(tried[-1])
            if result is None:
                break
            if stops_enough(undefended["stolen"]["accuracy"], result["stolen"]["accuracy"]):
                behind = middle
            else:
                first = middle + 1
        return tried

    def chosen(self, data: str, defence: str, *, capped: bool) -> DefenceSettings | None:
        """Return the setting of the paper's criterion, None while its runs are missing."""
        which = data, defence, capped
        if which not in self._chosen and (found := self._choose(data, defence, capped=capped)):
            self._chosen[which] = found
        return self._chosen.get(which)

    def _choose(self, data: str, defence: str, *, capped: bool) -> DefenceSettings | None:
        undefended = self.known(self.base(data, seed=PILOT))
        runs = self.grid(data, defence, capped=capped)
        results = [self.known(run) for run in runs]
        if undefended is None or any(
            result is None or not run.steals for run, result in zip(runs, results, strict=True)
        ):
            return None
        candidates = [
            Tried(run.defence, result["protected"]["cosine"], result["stolen"]["accuracy"])
            for run, result in zip(runs, results, strict=True)
            if result is not None
        ]
        return choose(candidates, undefended=undefended["stolen"]["accuracy"]).defence

    def repeats(self, data: str, defence: DefenceSettings | None) -> list[Run]:
        """Return the defence study's runs of one setting, a run for each seed that is told of.

        Args:
            data: the data set.
            defence: its parameters, empty for none; None while it has not been chosen.
        """
        if defence is None:
            return []
        return [self.base(data, defence, seed=seed) for seed in self.scale.told]

    def against(
        self, data: str, setting: DefenceSettings | None, changes: Difference, **more: Any
    ) -> list[Run]:
        """Return the runs of another thief before the study's M with a setting."""
        some = self.repeats(data, setting)[: self.scale.other_seeds]
        return [run.but(**changes, **more) for run in some]

    def ours(self, data: str) -> DefenceSettings | None:
        """Return Reverse Sigmoid with the cap, at the setting chosen for it."""
        return self.chosen(data, "reverse_sigmoid", capped=True)

    def _settings(self, data: str, *, capped: bool) -> Iterator[Run]:
        """Yield what a setting of Reverse Sigmoid is chosen by."""
        yield self.base(data, seed=PILOT)
        yield from self.grid(data, "reverse_sigmoid", capped=capped)

    def _curves(self) -> Iterator[Run]:
        for data in self.scale.data:
            yield from self._settings(data, capped=False)

    def undecided(self) -> bool:
        """Return whether more runs will be needed than can be told yet."""
        return any(
            self.chosen(data, defence, capped=capped) is None
            for data in self.scale.data
            for defence in NAMES
            for capped in (False, True)
        )

    def _defences(self) -> Iterator[Run]:
        for data in self.scale.data:
            yield self.base(data, seed=PILOT)
            yield from self.repeats(data, {})
            for defence in NAMES:
                for capped in (False, True):
                    yield from self.grid(data, defence, capped=capped)
                    yield from self.repeats(data, self.chosen(data, defence, capped=capped))

    # -- other networks: Table 3, Figure 4 ----------------------------------------------------

    def network(self, architecture: str, *, protected: bool) -> list[Run]:
        """Return the run of another M, stolen into the study's network (Table 3).

        Its setting is the one chosen for the study's own M.
        """
        data = self.scale.architectures_on
        runs = self.against(data, self.paper_setting(data) if protected else {}, {})[:1]
        return [run.but(victim=replace(run.victim, architecture=architecture)) for run in runs]

    def replica(self, architecture: str) -> list[Run]:
        """Return the run of a network that learns from the study's M, unprotected (Figure 4)."""
        return self.against(self.scale.architectures_on, {}, {"substitute": architecture})[:1]

    def paper_setting(self, data: str) -> DefenceSettings | None:
        """Return Reverse Sigmoid as the paper has it, without the cap, at its chosen setting."""
        return self.chosen(data, "reverse_sigmoid", capped=False)

    def _networks(self) -> Iterator[Run]:
        if not self.scale.architectures:
            return
        yield from self._settings(self.scale.architectures_on, capped=False)
        for architecture in self.scale.architectures:
            yield from self.replica(architecture)
            for protected in (False, True):
                yield from self.network(architecture, protected=protected)

    # -- the attack study: Figure 2 -----------------------------------------------------------

    def attack(self, attack: str, real: int, queries: int) -> list[Run]:
        """Return the runs of the attack study, without a defence.

        Args:
            attack: Sample asks about real images, Jacobian makes more from them, and Random has
                none.
            real: images that the thief has.
            queries: images that it asks about.
        """
        scale = self.scale
        network = scale.attack_architecture
        return [
            run.but(
                victim=replace(run.victim, architecture=network),
                substitute=network,
                attack=attack,
                queries=queries,
                real=real if attack == "jacobian" else 0,
                steps=scale.attack_steps,
            )
            for run in self.against(scale.attacks_on, {}, {})
        ]

    def attacks(self, attack: str) -> dict[int, list[Run]]:
        """Return an attack's runs by the real images that the thief has.

        Sample asks about those alone, Jacobian and Random about ``attack_times`` as many.
        """
        times = 1 if attack == "sample" else self.scale.attack_times
        return {real: self.attack(attack, real, real * times) for real in self.scale.attack_samples}

    def as_often(self) -> dict[int, list[Run]]:
        """Return, for as many real images of Jacobian, Sample with as many queries, all real."""
        times = self.scale.attack_times
        return {
            real: self.attack("sample", real * times, real * times)
            for real in self.scale.attack_samples
        }

    def _attacks(self) -> Iterator[Run]:
        of_all = [self.attacks(attack) for attack in ATTACKS_COMPARED]
        for by_real in (*of_all, self.as_often()):
            for runs in by_real.values():
                yield from runs

    # -- thieves who know better: Table 4, Figures 6 and 7 ------------------------------------

    def shown(self, data: str, images: int, changes: Difference) -> list[Run]:
        """Return a thief before the study's M, unprotected, who is shown so many images."""
        return self.against(data, {}, changes, queries=images, steps=images // BATCH)

    def kept(self, data: str, images: int, changes: Difference) -> list[Run]:
        """Return the same of fewer images, which the thief goes through again and again."""
        return self.against(data, {}, changes, queries=images, steps=self.scale.kept_steps)

    def converged(
        self, data: str, setting: DefenceSettings | None, changes: Difference
    ) -> list[Run]:
        """Return the runs of the defence study's thief, or another, that trains to the end."""
        return self.against(data, setting, changes, steps=self.scale.kept_steps)

    def _converged(self) -> Iterator[Run]:
        for data in self.scale.data:
            for capped in (False, True):
                yield from self._settings(data, capped=capped)
            for changes in ({}, LABELS_ONLY):
                yield from self.converged(data, {}, changes)
            for setting in (self.paper_setting(data), self.ours(data)):
                yield from self.converged(data, setting, {})

    def recovery(self, data: str, recover: str, beta: float, gamma: float) -> list[Run]:
        """Return the runs of Figure 7: an inversion fitted on true pairs, and no substitute."""
        setting = {"defense": "reverse_sigmoid", "beta": beta, "gamma": gamma}
        setting["preserve_top1"] = False
        return self.against(data, setting, {"recover": recover, "substitute": "", "steps": 0})

    def _thieves(self) -> Iterator[Run]:
        for data in self.scale.recovery_on:
            for capped in (False, True):
                yield from self._settings(data, capped=capped)
            for setting in (self.paper_setting(data), self.ours(data)):
                for changes in TABLE_4:
                    yield from self.against(data, setting, changes)

    def _labels(self) -> Iterator[Run]:
        for data in self.scale.labels_on:
            for changes in ({}, LABELS_ONLY):
                for images in self.scale.labels_kept:
                    yield from self.kept(data, images, changes)
                for images in self.scale.labels_queries:
                    yield from self.shown(data, images, changes)

    def _inversions(self) -> Iterator[Run]:
        for data in self.scale.recovery_on:
            yield from self._settings(data, capped=False)
            setting = self.paper_setting(data)
            if setting is not None:
                for beta in self.scale.magnitudes:
                    for recover in ("linear", "mlp"):
                        yield from self.recovery(data, recover, beta, setting["gamma"])

    # -- beyond the paper ---------------------------------------------------------------------

    def hardened(self, data: str, mode: DefenceSettings, changes: Difference) -> list[Run]:
        """Return the runs of a thief before our chosen setting with more of our modes."""
        ours = self.ours(data)
        return [] if ours is None else self.against(data, {**ours, **mode}, changes)

    def _beyond(self) -> Iterator[Run]:
        for data in self.scale.data:
            yield from self._settings(data, capped=True)
            shown: list[tuple[DefenceSettings, Changes]] = [({}, (*TABLE_4, *self.scale.adaptive))]
            if self.scale.with_modes(data):
                shown += [(HARDENED[name], AGAINST_HARDENED) for name in self.scale.hardened]
                shown += [({"margin": margin}, ({},)) for margin in self.scale.margins]
            for mode, thieves in shown:
                for changes in thieves:
                    yield from self.hardened(data, mode, changes)

    def honest(self, data: str, answers: str, setting: DefenceSettings | None) -> list[Run]:
        """Return the runs of the naive thief before answers, judged for honest clients too.

        Args:
            data: the data set.
            answers: see ``load_tests.runs.answers``; the defence's where it is empty.
            setting: the defence, empty for none; None while it has not been chosen.
        """
        return self.against(data, setting, {}, answers=answers, held_out=HELD_OUT)

    def _honest(self) -> Iterator[Run]:
        for data in self.scale.honest_on:
            yield from self._settings(data, capped=True)
            for answers in HONEST.values():
                yield from self.honest(data, answers, {})
            yield from self.honest(data, "", self.ours(data))

    def few(
        self, data: str, queries: int, setting: DefenceSettings, changes: Difference
    ) -> list[Run]:
        """Return the runs of a thief of few queries."""
        return self.against(data, setting, changes, queries=queries)

    def _few(self) -> Iterator[Run]:
        for data, budgets in self.scale.few_on.items():
            for queries in budgets:
                for name in self.scale.few_thieves:
                    yield from self.few(data, queries, *FEW[name])


#: The most telling first.
PARTS: dict[str, Callable[[PaperPlan], Iterator[Run]]] = {
    "figure1": PaperPlan._curves,
    "table1": PaperPlan._defences,
    "table2": PaperPlan._defences,
    "figure5": PaperPlan._defences,
    "table4": PaperPlan._thieves,
    "converged": PaperPlan._converged,
    "figure6": PaperPlan._labels,
    "figure7": PaperPlan._inversions,
    "honest": PaperPlan._honest,
    "few": PaperPlan._few,
    "beyond": PaperPlan._beyond,
    "figure2": PaperPlan._attacks,
    "figure3": PaperPlan._attacks,
    "table3": PaperPlan._networks,
    "figure4": PaperPlan._networks,
}
