"""Tables that the paper does not have: stronger thieves, our modes, other answers, few queries."""

import math

from load_tests.calibrate.honest import HEAD
from load_tests.paper.grids import DefenceSettings
from load_tests.paper.measured import (
    STOLEN,
    Measured,
    TableRows,
    arrow,
    mean,
    said,
    table,
)
from load_tests.paper.tables import TITLES
from load_tests.paper.thieves import (
    AGAINST_HARDENED,
    FEW,
    HARDENED,
    HONEST,
    LABELS_ONLY,
    TABLE_4,
    Difference,
)
from load_tests.stealing import verdict
from load_tests.stealing.thief import changed

_TWO = ("agreement", "accuracy")
_SHOWN = (*_TWO, "cosine", "mae")


class Beyond(Measured):
    """The tables of one scale."""

    def advice(self) -> str:
        """Return, for each data set, our setting, its price to honest users and to thieves."""
        rows: TableRows = []
        for data in self.scale.data:
            ours = self.plan.ours(data)
            best = self.best_adaptive(data)
            rows.append(
                [
                    TITLES[data],
                    said(ours),
                    self.repeated(data, ours, "protected", "agreement"),
                    self._pair(data, ours, "accuracy"),
                    self.repeated(data, ours, "protected", "cosine"),
                    self.repeated(data, ours, "protected", "top5_overlap"),
                    self._pair(data, ours, "calibration_error"),
                    self._pair(data, ours, "brier"),
                    self.repeated(data, {}, *STOLEN),
                    self.repeated(data, ours, *STOLEN),
                    "" if best is None else f"{best[1]:.3f} ({best[0]})",
                    self.cell(self.plan.hardened(data, {}, LABELS_ONLY)),
                ]
            )
        head = (
            *("data", "setting", "P agreement", "accuracy, M -> P", "cosine", "top-5 overlap"),
            *("calibration error, M -> P", "Brier, M -> P", "S(M)", "naive S(P)"),
            *("best adaptive", "labels only"),
        )
        return table(head, rows, keys=2)

    def _pair(self, data: str, setting: DefenceSettings | None, key: str) -> str:
        victim, protected = (
            self.repeated(data, setting, who, key) for who in ("victim", "protected")
        )
        return arrow(victim, protected)

    def best_adaptive(self, data: str) -> tuple[str, float] | None:
        """Return the best outsider before our setting who keeps more than labels, and how good."""
        found = []
        for changes in (*TABLE_4, *self.scale.adaptive):
            thief, agreement = changed(changes), self.stolen(self.plan.hardened(data, {}, changes))
            if thief.outsider and not thief.labels_only and not math.isnan(agreement):
                found.append((agreement, thief.name))
        if not found:
            return None
        value, name = max(found)
        return name, value

    def suite(self, data: str) -> str:
        """Return every thief before our setting."""
        rows: TableRows = []
        for changes in (*TABLE_4, *self.scale.adaptive):
            runs, thief = self.plan.hardened(data, {}, changes), changed(changes)
            cells = [self.cell(runs, "stolen", key) for key in _SHOWN]
            rows.append([thief.name + " *" * (not thief.outsider), *cells])
        return table(("thief", *_SHOWN), rows)

    def hardened(self, data: str) -> str:
        """Return the hardened modes: what honest users get, and some thieves."""
        rows: TableRows = []
        modes = {"plain": {}, **{name: HARDENED[name] for name in self.scale.hardened}}
        for name, mode in modes.items() if self.scale.hardened else ():
            by_thief = [self.plan.hardened(data, mode, changes) for changes in AGAINST_HARDENED]
            honest = [
                self.cell(by_thief[0], "protected", key)
                for key in ("agreement", "cosine", "top5_overlap")
            ]
            rows.append([name, *honest, *map(self.cell, by_thief)])
        thieves = ("naive", "tail", "table", "duplicates, table")
        return table(("mode", "P agreement", "cosine", "top-5 overlap", *thieves), rows)

    def margins(self, data: str) -> str:
        """Return what a larger top-1 margin costs in protection."""
        rows: TableRows = []
        for margin in self.scale.margins:
            runs = self.plan.hardened(data, {"margin": margin}, {})
            honest = [self.cell(runs, "protected", key) for key in ("cosine", "calibration_error")]
            rows.append([f"{margin:g}", *honest, self.cell(runs)])
        return table(("margin", "cosine", "calibration error", "naive S(P)"), rows)

    def converged(self, data: str) -> str:
        """Return thieves of the defence study, and the same trained to the end."""
        plan = self.plan
        rows: TableRows = []
        for name, setting, changes in (
            ("no defence", {}, {}),
            ("labels only", {}, LABELS_ONLY),
            ("Reverse Sigmoid, no cap", plan.paper_setting(data), {}),
            ("Reverse Sigmoid, cap", plan.ours(data), {}),
        ):
            both = plan.against(data, setting, changes), plan.converged(data, setting, changes)
            rows.append([name, *(self.cell(runs, "stolen", key) for key in _TWO for runs in both)])
        steps = f"{self.scale.steps:,} steps", f"{self.scale.kept_steps:,}"
        return table(("answers", *(f"{key}, {at}" for key in _TWO for at in steps)), rows)

    def honest(self, data: str) -> str:
        """Return what answers are worth to honest clients, and to the naive thief."""
        ours = self.plan.ours(data)
        kinds = [(name, self.plan.honest(data, answers, {})) for name, answers in HONEST.items()]
        kinds.append((f"Reverse Sigmoid, {said(ours)}", self.plan.honest(data, "", ours)))
        rows: TableRows = [
            [
                name,
                *(self.cell(runs, "honest", key) for key in HEAD),
                self.cell(runs, "protected", "agreement"),
                self.cell(runs),
            ]
            for name, runs in kinds
        ]
        return table(("answers", *HEAD.values(), "P agreement", "stolen"), rows)

    def few(self, data: str) -> str:
        """Return thieves of few queries, by how many."""
        budgets = self.scale.few_on[data]
        rows: TableRows = [
            [
                name + " *" * (not setting),
                *(self.cell(self.plan.few(data, at, setting, changes)) for at in budgets),
            ]
            for name, (setting, changes) in FEW.items()
        ]
        return table(("thief", *(f"{at:,} queries" for at in budgets)), rows)

    def best_label_thief_of_few(self, data: str, queries: int) -> float:
        """Return the agreement of the best who keeps labels alone, NaN while none has been run."""
        found = [
            agreement
            for name, (setting, changes) in FEW.items()
            if setting and changes.get("labels_only")
            if not math.isnan(agreement := self.few_agreement(data, queries, name))
        ]
        return max(found, default=math.nan)

    def few_agreement(self, data: str, queries: int, name: str) -> float:
        """Return the mean agreement of a thief of few queries, NaN while it has not been run."""
        return self.stolen(self.plan.few(data, queries, *FEW[name]))

    # -- how many labels one probability is worth ---------------------------------------------

    def worth(self, data: str) -> str:
        """Return how many times as many queries labels need, by steps and queries."""
        budgets = self.scale.labels_kept
        rows: TableRows = []
        for steps in self.steps_looked_at(data):
            row = [f"{steps:,}"]
            for images in budgets:
                with_all = self.after(data, images, {}, steps)
                with_labels = self.after(data, images, LABELS_ONLY, steps)
                if math.isnan(with_all) or math.isnan(with_labels):
                    row.append("")
                    continue
                times = self.times(data, images, steps)
                told = (
                    f": {times_said(times, budgets[-1] / images)}" if images < budgets[-1] else ""
                )
                row.append(f"{with_all:.3f} against {with_labels:.3f}{told}")
            rows.append(row)
        return table(("steps", *(f"{images:,} queries" for images in budgets)), rows)

    def steps_looked_at(self, data: str) -> list[int]:
        """Return the steps after which those who go through few images again were looked at."""
        for images in self.scale.labels_kept:
            for run in self.plan.kept(data, images, {}):
                result = self.plan.known(run)
                if result is not None:
                    per_step = result["curve"][-1]["queries"] / run.steps
                    return [round(point["queries"] / per_step) for point in result["curve"]]
        return []

    def after(self, data: str, images: int, changes: Difference, steps: int) -> float:
        """Return the mean agreement of such a thief after so many steps, NaN if it is not known."""
        found = []
        for run in self.plan.kept(data, images, changes):
            curve = (self.plan.known(run) or {}).get("curve", [])
            found += [
                point["agreement"]
                for point in curve
                if round(point["queries"] * run.steps / curve[-1]["queries"]) == steps
            ]
        return mean(found)

    def times(self, data: str, images: int, steps: int) -> float:
        """Return how many times as many queries labels need.

        Infinite: more than were tried; NaN while labels have not been tried with every budget.
        """
        level = self.after(data, images, {}, steps)
        by_queries = [
            (at, self.after(data, at, LABELS_ONLY, steps)) for at in self.scale.labels_kept
        ]
        if any(math.isnan(agreement) for _, agreement in by_queries):
            return math.nan
        needed = verdict.queries_needed(by_queries, level)
        return math.inf if needed is None else needed / images


def times_said(times: float, most: float) -> str:
    """Return a number of times, or that it is more than could be tried."""
    return f"more than {most:g} times" if math.isinf(times) else f"{times:.1f} times"
