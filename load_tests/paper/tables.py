"""The tables of the paper and ours beside them, as Markdown."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from load_tests.paper import published
from load_tests.paper.grids import NAMES, DefenceSettings
from load_tests.paper.plan import PaperPlan
from load_tests.paper.thieves import AGAINST_HARDENED, HARDENED, LABELS_ONLY, TABLE_4
from load_tests.reporting.page import markdown
from load_tests.runs.run import Run
from load_tests.stealing.thief import NAIVE, Thief

TableRows = list[Sequence[str]]
MISSING = "not run"
#: How people call the data sets.
TITLES = {
    "digits": "digits",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "stl10": "STL-10",
    "banking77.npz": "Banking77",
    "clinc150.npz": "CLINC150",
}
NETWORKS = {
    "simple": "Simple",
    "allconv": "AllConv",
    "mobilenet": "MobileNet",
    "xception": "Xception",
}


def number(values: Sequence[float], digits: int = 3) -> str:
    """Return the mean, and the spread over seeds where they differ."""
    if not values:
        return MISSING
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(set(values)) > 1 else mean


def said(setting: DefenceSettings | None) -> str:
    """Return a setting as people write it."""
    if setting is None:
        return MISSING
    hidden = ("defense", "preserve_top1", "margin")
    return ", ".join(f"{key} {value:g}" for key, value in setting.items() if key not in hidden)


class Tables:
    """The tables of one scale."""

    def __init__(self, plan: PaperPlan) -> None:
        """Take the plan, which knows the results."""
        self.plan, self.scale = plan, plan.scale

    def values(self, runs: Iterable[Run], *path: str) -> list[float]:
        """Return one measure of those runs that have been made, such as ("stolen", "cosine")."""
        found = []
        for run in runs:
            value: Any = self.plan.known(run)
            if value is None:
                continue
            for key in path:
                value = value[key]
            found.append(float(value))
        return found

    def repeated(
        self, data: str, setting: DefenceSettings | None, *path: str, digits: int = 3
    ) -> str:
        """Return a measure of the defence study over its seeds."""
        return number(self.values(self.plan.repeats(data, setting), *path), digits)

    def table_1(self, data: str) -> str:
        """Return agreement of P and of S(P) for every defence."""
        rows: TableRows = []
        undefended = self.repeated(data, {}, "stolen", "agreement")
        paper, *others = _published(data)
        rows.append(["S(M), no defence", paper, "", undefended, "", ""])
        for (defence, name), paper in zip(NAMES.items(), others, strict=True):
            cells = [name, paper]
            for capped in (False, True):
                setting = self.plan.chosen(data, defence, capped=capped)
                ours = (
                    self.repeated(data, setting, who, "agreement")
                    for who in ("protected", "stolen")
                )
                cells += [said(setting), " -> ".join(ours)]
            rows.append(cells)
        head = ("defence", "paper", "setting, no cap", "P -> S(P)", "setting, cap", "P -> S(P)")
        return markdown(head, rows)

    def table_2(self, data: str) -> str:
        """Return accuracies and the distance of P from M, for Reverse Sigmoid."""
        rows: TableRows = []
        if data in published.TABLE_2:
            m, p, s, cosine, mae, kl = (f"{each:.2f}" for each in published.TABLE_2[data])
            rows.append(["paper", m, p, s, cosine, mae, f"{kl}, unit and direction not said", ""])
        for capped in (False, True):
            setting = self.plan.chosen(data, "reverse_sigmoid", capped=capped)
            cells = [
                self.repeated(data, setting, who, "accuracy")
                for who in ("victim", "protected", "stolen")
            ]
            cells += [self.repeated(data, setting, "protected", key) for key in ("cosine", "mae")]
            cells += [self._kl(data, setting, way) for way in ("from", "to")]
            rows.append([f"{'cap' if capped else 'no cap'}, {said(setting)}", *cells])
        head = ("", "M", "P", "S(P)", "cosine", "MAE", "KL(M‖P)", "KL(P‖M)")
        return markdown(head, rows)

    def _kl(self, data: str, setting: DefenceSettings | None, way: str) -> str:
        runs = self.plan.repeats(data, setting)
        nats = self.values(runs, "protected", f"kl_nats_{way}_victim")
        if not nats:
            return MISSING
        return f"{number(nats, 2)} nats, {statistics.fmean(nats) / math.log(2):.2f} bits"

    def table_3(self) -> str:
        """Return accuracies for each network as M, stolen into the study's own."""
        rows: TableRows = []
        for architecture, name in NETWORKS.items():
            paper = ", ".join(f"{each:.2f}" for each in published.TABLE_3[architecture])
            cells = [name, paper]
            if architecture not in self.scale.architectures:
                rows.append([*cells, *[MISSING] * 4])
                continue
            plain, protected = (
                self.plan.network(architecture, protected=way) for way in (False, True)
            )
            for runs, who in (
                *((plain, who) for who in ("victim", "stolen")),
                *((protected, who) for who in ("protected", "stolen")),
            ):
                cells.append(number(self.values(runs, who, "accuracy")))
            rows.append(cells)
        head = ("M", "paper: M, P, S(P) on CIFAR-10", "M", "S(M)", "P", "S(P)")
        return markdown(head, rows)

    def table_4(self, data: str) -> str:
        """Return the agreement of thieves who know more, or keep less."""
        rows: TableRows = []
        for changes in TABLE_4:
            name = _thief(changes).name
            paper = published.TABLE_4.get(name)
            cells = [name, "" if paper is None else f"{paper:.2f}"]
            for setting in (self.plan.paper_setting(data), self.plan.ours(data)):
                runs = self.plan.against(data, setting, changes)
                cells.append(number(self.values(runs, *_STOLEN)))
            rows.append(cells)
        return markdown(("thief", "paper (CIFAR-10)", "no cap", "cap"), rows)

    def advice(self) -> str:
        """Return, for each data set, our setting, its price to honest users and to thieves."""
        rows: TableRows = []
        for data in self.scale.data:
            ours = self.plan.ours(data)
            best = self.best_adaptive(data)
            labels = number(self.values(self.plan.hardened(data, {}, LABELS_ONLY), *_STOLEN))
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
                    self.repeated(data, {}, *_STOLEN),
                    self.repeated(data, ours, *_STOLEN),
                    MISSING if best is None else f"{best[1]:.3f} ({best[0]})",
                    labels,
                ]
            )
        head = (
            *("data", "setting", "P agreement", "accuracy, M -> P", "cosine", "top-5 overlap"),
            *("calibration error, M -> P", "Brier, M -> P", "S(M)", "naive S(P)"),
            *("best adaptive", "labels only"),
        )
        return markdown(head, rows)

    def _pair(self, data: str, setting: DefenceSettings | None, key: str) -> str:
        return " -> ".join(
            self.repeated(data, setting, who, key) for who in ("victim", "protected")
        )

    def best_adaptive(self, data: str) -> tuple[str, float] | None:
        """Return the best outsider before our setting who keeps more than labels, and how good."""
        found = []
        for changes in (*TABLE_4, *self.scale.adaptive):
            thief = _thief(changes)
            agreements = self.values(self.plan.hardened(data, {}, changes), *_STOLEN)
            if thief.outsider and not thief.labels_only and agreements:
                found.append((statistics.fmean(agreements), thief.name))
        if not found:
            return None
        value, name = max(found)
        return name, value

    def suite(self, data: str) -> str:
        """Return every thief before our setting."""
        rows: TableRows = []
        for changes in (*TABLE_4, *self.scale.adaptive):
            runs = self.plan.hardened(data, {}, changes)
            thief = _thief(changes)
            cells = [number(self.values(runs, "stolen", key)) for key in _SHOWN]
            rows.append([thief.name + " *" * (not thief.outsider), *cells])
        return markdown(("thief", *_SHOWN), rows)

    def hardened(self, data: str) -> str:
        """Return the hardened modes: what honest users get, and some thieves."""
        rows: TableRows = []
        modes = {"plain": {}, **{name: HARDENED[name] for name in self.scale.hardened}}
        for name, mode in modes.items():
            by_thief = [self.plan.hardened(data, mode, changes) for changes in AGAINST_HARDENED]
            honest = [
                number(self.values(by_thief[0], "protected", key))
                for key in ("agreement", "cosine", "top5_overlap")
            ]
            stolen = [number(self.values(runs, *_STOLEN)) for runs in by_thief]
            rows.append([name, *honest, *stolen])
        thieves = ("naive", "tail", "table", "duplicates, table")
        return markdown(("mode", "P agreement", "cosine", "top-5 overlap", *thieves), rows)

    def margins(self, data: str) -> str:
        """Return what a larger top-1 margin costs in protection."""
        rows: TableRows = []
        for margin in self.scale.margins:
            runs = self.plan.hardened(data, {"margin": margin}, {})
            honest = [
                number(self.values(runs, "protected", key))
                for key in ("cosine", "calibration_error")
            ]
            rows.append([f"{margin:g}", *honest, number(self.values(runs, *_STOLEN))])
        return markdown(("margin", "cosine", "calibration error", "naive S(P)"), rows)

    def capped(self) -> list[Run]:
        """Return every run with the cap on that has been made."""
        runs = {run.name: run for run in self.plan.needed("all")}
        return [
            run
            for run in runs.values()
            if run.defence and run.parameters.preserve_top1 and self.plan.known(run) is not None
        ]


def _published(data: str) -> list[str]:
    """Return the paper's column of Table 1: without a defence, then of each."""
    if data not in published.TABLE_1:
        return [""] * (1 + len(NAMES))
    undefended, defended = published.TABLE_1[data]
    shown = ("lost" if pair is None else f"{pair[0]:.2f} -> {pair[1]:.2f}" for pair in defended)
    return [f"{undefended:.2f}", *shown]


def _thief(changes: dict[str, Any]) -> Thief:
    return Thief(**{"attack": NAIVE.attack, **changes})


_STOLEN = ("stolen", "agreement")
_SHOWN = ("agreement", "accuracy", "cosine", "mae")
