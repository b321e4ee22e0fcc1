"""The tables of the paper and ours beside them, as Markdown."""

import math

from load_tests.paper import published
from load_tests.paper.grids import NAMES, DefenceSettings
from load_tests.paper.measured import (
    STOLEN,
    Measured,
    TableRows,
    arrow,
    mean,
    number,
    said,
    table,
)
from load_tests.paper.thieves import TABLE_4
from load_tests.stealing.thief import changed

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
    "mlp": "two dense layers",
}


class Tables(Measured):
    """The tables of one scale."""

    def table_1(self, data: str) -> str:
        """Return agreement of P and of S(P) for every defence."""
        paper, *others = _published(data)
        rows: TableRows = [
            ["S(M), no defence", paper, "", self.repeated(data, {}, *STOLEN), "", ""]
        ]
        for (defence, name), paper in zip(NAMES.items(), others, strict=True):
            cells = [name, paper]
            for capped in (False, True):
                setting = self.plan.chosen(data, defence, capped=capped)
                ours = (
                    self.repeated(data, setting, who, "agreement")
                    for who in ("protected", "stolen")
                )
                shown = arrow(*ours)
                cells += [said(setting) if shown else "", shown]
            rows.append(cells)
        head = ("defence", "paper", "setting, no cap", "P -> S(P)", "setting, cap", "P -> S(P)")
        return table(head, rows, keys=2)

    def table_2(self, data: str) -> str:
        """Return accuracies and the distance of P from M, for Reverse Sigmoid."""
        rows: TableRows = []
        for capped in (False, True):
            setting = self.plan.chosen(data, "reverse_sigmoid", capped=capped)
            cells = [
                self.repeated(data, setting, who, "accuracy")
                for who in ("victim", "protected", "stolen")
            ]
            cells += [self.repeated(data, setting, "protected", key) for key in ("cosine", "mae")]
            cells += [self._kl(data, setting, way) for way in ("from", "to")]
            rows.append([f"{'cap' if capped else 'no cap'}, {said(setting)}", *cells])
        if data in published.TABLE_2 and any(any(row[1:]) for row in rows):
            m, p, s, cosine, mae, kl = (f"{each:.2f}" for each in published.TABLE_2[data])
            kl += ", unit and direction not said"
            rows.insert(0, ["paper", m, p, s, cosine, mae, kl, ""])
        head = ("", "M", "P", "S(P)", "cosine", "MAE", "KL(M‖P)", "KL(P‖M)")
        return table(head, rows)

    def _kl(self, data: str, setting: DefenceSettings | None, way: str) -> str:
        runs = self.plan.repeats(data, setting)
        nats = self.values(runs, "protected", f"kl_nats_{way}_victim")
        return f"{number(nats, 2)} nats, {mean(nats) / math.log(2):.2f} bits" if nats else ""

    def table_3(self) -> str:
        """Return accuracies for each network as M, stolen into the study's own."""
        rows: TableRows = []
        for architecture in self.scale.architectures:
            paper = ", ".join(f"{each:.2f}" for each in published.TABLE_3[architecture])
            plain, protected = (
                self.plan.network(architecture, protected=way) for way in (False, True)
            )
            cells = [
                self.cell(runs, who, "accuracy")
                for runs, who in (
                    *((plain, who) for who in ("victim", "stolen")),
                    *((protected, who) for who in ("protected", "stolen")),
                )
            ]
            rows.append([NETWORKS[architecture], paper, *cells])
        return table(("M", "paper: M, P, S(P) on CIFAR-10", "M", "S(M)", "P", "S(P)"), rows, keys=2)

    def table_4(self, data: str) -> str:
        """Return the agreement of thieves who know more, or keep less."""
        rows: TableRows = []
        for changes in TABLE_4:
            name = changed(changes).name
            paper = published.TABLE_4.get(name)
            cells = [name, "" if paper is None else f"{paper:.2f}"]
            for setting in (self.plan.paper_setting(data), self.plan.ours(data)):
                cells.append(self.cell(self.plan.against(data, setting, changes)))
            rows.append(cells)
        return table(("thief", "paper (CIFAR-10)", "no cap", "cap"), rows, keys=2)


def _published(data: str) -> list[str]:
    """Return the paper's column of Table 1: without a defence, then of each."""
    if data not in published.TABLE_1:
        return [""] * (1 + len(NAMES))
    undefended, defended = published.TABLE_1[data]
    shown = ("lost" if pair is None else f"{pair[0]:.2f} -> {pair[1]:.2f}" for pair in defended)
    return [f"{undefended:.2f}", *shown]
