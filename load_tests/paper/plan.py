"""The runs that each table and figure needs, some of them known only when others are done."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from exporters.training.train import BATCH
from load_tests.paper.grids import NAMES, DefenceSettings
from load_tests.paper.scales import Scale
from load_tests.paper.thieves import AGAINST_HARDENED, HARDENED, TABLE_4, Changes
from load_tests.runs.criterion import Tried, choose
from load_tests.runs.run import Known, Run, Victim


class PaperPlan:
    """The runs of one scale."""

    def __init__(self, scale: Scale, known: Known) -> None:
        """Take the scale, and where results are looked up."""
        self.scale, self.known = scale, known

    def needed(self, what: str) -> Iterator[Run]:
        """Yield what a part needs, as far as results so far can tell; some may be made already.

        Args:
            what: one of ``PARTS``, or ``all``.
        """
        for name in PARTS if what == "all" else (what,):
            yield from PARTS[name](self)

    # -- the defence study: Tables 1 and 2, Figure 5 ------------------------------------------

    def base(self, data: str, defence: DefenceSettings | None = None, *, seed: int = 0) -> Run:
        """Return the thief of the defence study, who learns from all that Sample asks about."""
        scale = self.scale
        victim = Victim(
            data=data,
            architecture=scale.architecture,
            steps=scale.victim_steps,
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
        """Return the runs among which a setting is chosen."""
        settings = self.scale.grid.settings(defence, capped=capped)
        return [self.base(data, setting) for setting in settings]

    def chosen(self, data: str, defence: str, *, capped: bool) -> DefenceSettings | None:
        """Return the setting of the paper's criterion, None while its runs are missing."""
        undefended = self.known(self.base(data))
        runs = self.grid(data, defence, capped=capped)
        results = [self.known(run) for run in runs]
        if undefended is None or any(result is None for result in results):
            return None
        candidates = [
            Tried(run.defence, result["protected"]["cosine"], result["stolen"]["accuracy"])
            for run, result in zip(runs, results, strict=True)
            if result is not None
        ]
        return choose(candidates, undefended=undefended["stolen"]["accuracy"]).defence

    def repeats(self, data: str, defence: DefenceSettings | None) -> list[Run]:
        """Return the defence study's runs of one setting, a run for each seed.

        Args:
            data: the data set.
            defence: its parameters, empty for none; None while it has not been chosen.
        """
        if defence is None:
            return []
        return [self.base(data, defence, seed=seed) for seed in range(self.scale.seeds)]

    def ours(self, data: str) -> DefenceSettings | None:
        """Return Reverse Sigmoid with the cap, at the setting chosen for it."""
        return self.chosen(data, "reverse_sigmoid", capped=True)

    def _settings(self, data: str, *, capped: bool) -> Iterator[Run]:
        """Yield what a setting of Reverse Sigmoid is chosen by."""
        yield self.base(data)
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
            yield from self.repeats(data, {})
            for capped in (False, True):
                for defence in NAMES:
                    yield from self.grid(data, defence, capped=capped)
                    yield from self.repeats(data, self.chosen(data, defence, capped=capped))

    # -- other networks: Table 3, Figure 4 ----------------------------------------------------

    def network(self, architecture: str, *, protected: bool) -> Run | None:
        """Return the run of another M, stolen into the study's network (Table 3).

        Its setting is the one chosen for the study's own M; None while there is none.
        """
        data = self.scale.architectures_on
        setting = self.paper_setting(data) if protected else {}
        if setting is None:
            return None
        run = self.base(data, setting)
        return run.but(victim=replace(run.victim, architecture=architecture))

    def replica(self, architecture: str) -> Run:
        """Return the run of a network that learns from the study's M, unprotected (Figure 4)."""
        return self.base(self.scale.architectures_on).but(substitute=architecture)

    def paper_setting(self, data: str) -> DefenceSettings | None:
        """Return Reverse Sigmoid as the paper has it, without the cap, at its chosen setting."""
        return self.chosen(data, "reverse_sigmoid", capped=False)

    def _networks(self) -> Iterator[Run]:
        yield from self._settings(self.scale.architectures_on, capped=False)
        for architecture in self.scale.architectures:
            yield self.replica(architecture)
            for protected in (False, True):
                run = self.network(architecture, protected=protected)
                if run is not None:
                    yield run

    # -- the attack study: Figure 2 -----------------------------------------------------------

    def attack(self, attack: str, samples: int) -> Run:
        """Return a run of the attack study: Simple for M and S, no defence.

        Args:
            attack: Sample asks about the real images that it has; Jacobian makes more from
                them, and Random has none and as many queries as Jacobian.
            samples: real images.
        """
        scale = self.scale
        victim = Victim(
            data=scale.attacks_on, architecture="simple", steps=scale.victim_steps, seed=0
        )
        return Run(
            victim=victim,
            substitute="simple",
            attack=attack,
            queries=samples if attack == "sample" else samples * scale.attack_times,
            real=samples if attack == "jacobian" else 0,
            steps=scale.attack_steps,
            judged_on=scale.judged_on,
        )

    def _attacks(self) -> Iterator[Run]:
        for samples in self.scale.attack_samples:
            for attack in ("sample", "random", "jacobian"):
                yield self.attack(attack, samples)

    # -- thieves who know better: Table 4, Figures 6 and 7 ------------------------------------

    def against(self, setting: DefenceSettings, changes: dict[str, Any]) -> Run:
        """Return the run of another thief before the study's M with a setting."""
        run = self.base(self.scale.recovery_on, setting)
        return run.but(**changes)

    def shown(self, data: str, images: int, changes: dict[str, Any]) -> Run:
        """Return a thief before the study's M, unprotected, who is shown so many images."""
        run = self.base(data)
        return run.but(queries=images, steps=images // BATCH, **changes)

    def kept(self, data: str, changes: dict[str, Any]) -> Run:
        """Return the same of few images, which the thief goes through again and again."""
        return self.shown(data, self.scale.labels_kept, changes).but(steps=self.scale.attack_steps)

    def recovery(self, recover: str, beta: float, gamma: float) -> Run:
        """Return a run of Figure 7: an inversion fitted on true pairs, and no substitute."""
        setting = {"defense": "reverse_sigmoid", "beta": beta, "gamma": gamma}
        run = self.base(self.scale.recovery_on, {**setting, "preserve_top1": False})
        return run.but(recover=recover, substitute="", steps=0)

    def _thieves(self) -> Iterator[Run]:
        data = self.scale.recovery_on
        for capped in (False, True):
            yield from self._settings(data, capped=capped)
        for setting in (self.paper_setting(data), self.ours(data)):
            if setting is not None:
                yield from (self.against(setting, changes) for changes in TABLE_4)

    def _labels(self) -> Iterator[Run]:
        for data in self.scale.labels_on:
            for images in self.scale.labels_queries:
                yield self.shown(data, images, {})
                yield self.shown(data, images, {"labels_only": True})
            yield self.kept(data, {})
            yield self.kept(data, {"labels_only": True})

    def _inversions(self) -> Iterator[Run]:
        yield from self._settings(self.scale.recovery_on, capped=False)
        setting = self.paper_setting(self.scale.recovery_on)
        if setting is not None:
            for beta in self.scale.magnitudes:
                for recover in ("linear", "mlp"):
                    yield self.recovery(recover, beta, setting["gamma"])

    # -- beyond the paper ---------------------------------------------------------------------

    def hardened(self, data: str, mode: DefenceSettings, changes: dict[str, Any]) -> Run | None:
        """Return the run of a thief before our chosen setting with more of our modes."""
        ours = self.ours(data)
        return None if ours is None else self.base(data, {**ours, **mode}).but(**changes)

    def _beyond(self) -> Iterator[Run]:
        for data in self.scale.data:
            yield from self._settings(data, capped=True)
            shown: list[tuple[DefenceSettings, Changes]] = [({}, (*TABLE_4, *self.scale.adaptive))]
            if self.scale.with_modes(data):
                shown += [(HARDENED[name], AGAINST_HARDENED) for name in self.scale.hardened]
                shown += [({"margin": margin}, ({},)) for margin in self.scale.margins]
            for mode, thieves in shown:
                for changes in thieves:
                    run = self.hardened(data, mode, changes)
                    if run is not None:
                        yield run


PARTS: dict[str, Callable[[PaperPlan], Iterator[Run]]] = {
    "figure1": PaperPlan._curves,
    "figure2": PaperPlan._attacks,
    "figure3": PaperPlan._attacks,
    "table1": PaperPlan._defences,
    "table2": PaperPlan._defences,
    "figure5": PaperPlan._defences,
    "table4": PaperPlan._thieves,
    "figure6": PaperPlan._labels,
    "figure7": PaperPlan._inversions,
    "beyond": PaperPlan._beyond,
    "table3": PaperPlan._networks,
    "figure4": PaperPlan._networks,
}
