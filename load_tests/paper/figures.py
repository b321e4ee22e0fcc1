"""The figures of the paper from our runs, as SVG."""

import base64
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from load_tests.paper.grids import NAMES
from load_tests.paper.measured import said
from load_tests.paper.plan import ATTACKS_COMPARED, PaperPlan
from load_tests.paper.tables import NETWORKS, TITLES
from load_tests.paper.thieves import LABELS_ONLY, Difference
from load_tests.reporting.plots import draw_served, figure, panels, svg
from load_tests.runs.criterion import PILOT
from load_tests.runs.run import Run
from postprocess.parameters import Parameters

#: x, mean over seeds, standard deviation over them.
Line = list[tuple[float, float, float]]
_FIGURE_6 = {
    "agreement": "agreement",
    "cosine": "cosine",
    "kl_nats_from_victim": "KL(M‖S), nats",
}
_LABELS, _PLAIN = "labels only", "no defence"
#: The colour of each thief and each defence, in every figure.
_COLOURS = {
    _PLAIN: "0.25",
    "Sample": "0.25",
    "probabilities": "0.25",
    _LABELS: "tab:orange",
    NAMES["reverse_sigmoid"]: "tab:blue",
    NAMES["uniform"]: "tab:red",
    NAMES["uniform_concave"]: "tab:purple",
    NAMES["uniform_convex"]: "tab:pink",
    NAMES["sine"]: "tab:green",
    "Jacobian": "tab:olive",
    "Random": "tab:brown",
    "Sample, as many queries": "tab:cyan",
    "as answered": "tab:blue",
    "linear regression": "tab:green",
    "MLP": "tab:purple",
    NETWORKS["simple"]: "tab:blue",
    NETWORKS["allconv"]: "tab:orange",
    NETWORKS["mobilenet"]: "tab:green",
    NETWORKS["xception"]: "tab:red",
}


class Figures:
    """The figures of one scale; what has not been run is left out."""

    def __init__(self, plan: PaperPlan) -> None:
        """Take the plan, which knows the results."""
        self.plan, self.scale = plan, plan.scale

    def all(self) -> Iterator[tuple[str, str, str]]:
        """Yield (file name without its end, caption, SVG) of every figure."""
        for name, caption, text in self._drawn():
            if text:
                yield name, caption, text

    def _drawn(self) -> Iterator[tuple[str, str, str]]:
        scale = self.scale
        yield "figure1", "Figure 1: equation 2 over two classes", self._figure_1()
        caption = "Figure 2: which queries steal best (no defence); Jacobian and Random ask "
        caption += f"{scale.attack_times} times as often as there are real images"
        yield "figure2", caption, self._figure_2()
        caption = "Figure 3: real images, and below them what Jacobian augmentation makes, with "
        yield "figure3", caption + "the victim's classes", self._figure_3()
        caption = "Figure 4: networks that learn from M (no defence), along one training"
        yield "figure4", caption, self._figure_4()
        for data in scale.data:
            caption = f"Figure 5, {TITLES[data]}: agreement of S(P) along one training"
            yield f"figure5_{Path(data).stem}", caption, self._figure_5(data)
        for data in scale.labels_on:
            caption = f"Figure 6, {TITLES[data]}: probabilities against labels (no defence), "
            shown = f"{caption}images shown, as the paper counts"
            yield f"figure6_{Path(data).stem}", shown, self._figure_6(data)
            kept = f"{caption}few images for {scale.kept_steps:,} steps"
            yield f"figure6_{Path(data).stem}_long", kept, self._figure_6_long(data)
        for data in scale.recovery_on:
            caption = f"Figure 7, {TITLES[data]}: inversion fitted on true pairs"
            yield f"figure7_{Path(data).stem}", caption, self._figure_7(data)
        for data in scale.data:
            caption = f"{TITLES[data]}: what each setting of the grids costs and stops, pilot seed"
            yield f"tradeoff_{Path(data).stem}", caption, self._tradeoff(data)

    def _figure_1(self) -> str:
        settings = {data: self.plan.paper_setting(data) for data in self.scale.data}
        if not any(settings.values()):
            return ""
        made, axes = figure()
        defences = {
            f"{TITLES[data]}: {said(setting)}": Parameters(scores="probabilities", **setting)
            for data, setting in settings.items()
            if setting is not None
        }
        draw_served(axes, defences)
        axes.legend(frameon=False, fontsize="small")
        return svg(made)

    def _figure_2(self) -> str:
        curves = {one.title(): self._line(self.plan.attacks(one)) for one in ATTACKS_COMPARED}
        curves["Sample, as many queries"] = self._line(self.plan.as_often())
        return _curves(curves, "real images of the adversary", "agreement of S(M)")

    def _figure_3(self) -> str:
        (*_, runs) = self.plan.attacks("jacobian").values()
        result = self.plan.known(runs[0]) if runs else None
        if not result or not result.get("examples"):
            return ""
        from matplotlib.figure import Figure

        examples = result["examples"]
        made = Figure(figsize=(1.1 * len(examples), 2.6), layout="constrained")
        grid = made.subplots(2, len(examples), squeeze=False)
        for column, example in enumerate(examples):
            for row, name in enumerate(("real", "made")):
                pixels = np.frombuffer(base64.b64decode(example[f"{name}_pixels"]), np.uint8)
                axes = grid[row][column]
                axes.imshow(pixels.reshape(example["shape"]).squeeze(), cmap="gray")
                axes.set_title(str(example[f"{name}_class"]), fontsize="small")
                axes.axis("off")
        return svg(made)

    def _figure_4(self) -> str:
        curves = {
            NETWORKS[architecture]: self._curve(self.plan.replica(architecture))
            for architecture in self.scale.architectures
        }
        return _curves(curves, "images shown", "agreement of S(M)")

    def _figure_5(self, data: str) -> str:
        sides = {}
        for capped in (False, True):
            curves = {_PLAIN: self._curve(self.plan.repeats(data, {}))}
            for defence, name in NAMES.items():
                setting = self.plan.chosen(data, defence, capped=capped)
                curves[name] = self._curve(self.plan.repeats(data, setting))
            sides["with the cap" if capped else "without"] = curves
        return _panels(sides, "images shown", "agreement of S(P)")

    def _figure_6(self, data: str) -> str:
        return self._by_measure(self.scale.labels_queries, partial(self.plan.shown, data), "shown")

    def _figure_6_long(self, data: str) -> str:
        return self._by_measure(self.scale.labels_kept, partial(self.plan.kept, data), "asked")

    def _by_measure(
        self, budgets: Iterable[int], thief: Callable[[int, Difference], list[Run]], what: str
    ) -> str:
        thieves: dict[str, Difference] = {"probabilities": {}, _LABELS: LABELS_ONLY}
        by_measure = {
            title: {
                name: self._line({at: thief(at, changes) for at in budgets}, key)
                for name, changes in thieves.items()
            }
            for key, title in _FIGURE_6.items()
        }
        return _panels(by_measure, f"images {what}", "of S(M) and M")

    def _figure_7(self, data: str) -> str:
        setting = self.plan.paper_setting(data)
        if setting is None:
            return ""
        kl = "kl_nats_from_victim"
        linear, mlp = (
            {
                beta: self.plan.recovery(data, way, beta, setting["gamma"])
                for beta in self.scale.magnitudes
            }
            for way in ("linear", "mlp")
        )
        curves = {
            "as answered": self._line(linear, kl, who="asked"),
            "linear regression": self._line(linear, kl, who="recovered"),
            "MLP": self._line(mlp, kl, who="recovered"),
        }
        return _curves(curves, f"beta, at gamma {setting['gamma']:g}", "KL from M, nats", log="y")

    def _tradeoff(self, data: str) -> str:
        undefended = self.plan.known(self.plan.base(data, seed=PILOT))
        if undefended is None:
            return ""
        made, both = panels(2, 10, sharey=True)
        for axes, capped in zip(both, (False, True), strict=True):
            for defence, name in NAMES.items():
                points = [
                    (result["protected"]["cosine"], result["stolen"]["accuracy"])
                    for run in self.plan.grid(data, defence, capped=capped)
                    if (result := self.plan.known(run))
                ]
                if points:
                    colour = _COLOURS[name]
                    axes.plot(
                        *zip(*points, strict=True), "o", markersize=5, label=name, color=colour
                    )
            axes.axhline(undefended["stolen"]["accuracy"], color="0.4", linewidth=1)
            axes.set(xlabel="cosine of P and M", title="with the cap" if capped else "without")
            axes.set_ylim(0, 1)
        both[0].set_ylabel("accuracy of S(P)")
        both[0].legend(frameon=False, fontsize="small")
        return svg(made)

    def _line(
        self, by_x: Mapping[Any, Iterable[Run]], key: str = "agreement", *, who: str = "stolen"
    ) -> Line:
        """Return a measure over runs, by whatever the runs are for."""
        found = {
            float(x): [result[who][key] for run in runs if (result := self.plan.known(run))]
            for x, runs in by_x.items()
        }
        return _line(found)

    def _curve(self, runs: Iterable[Run]) -> Line:
        """Return the agreement over runs against the images shown."""
        points: dict[float, list[float]] = {}
        for run in runs:
            result: dict[str, Any] = self.plan.known(run) or {}
            for point in result.get("curve", []):
                points.setdefault(point["queries"], []).append(point["agreement"])
        return _line(points)


def _line(by_x: Mapping[float, list[float]]) -> Line:
    return [
        (x, statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
        for x, values in sorted(by_x.items())
        if values
    ]


def _curves(curves: dict[str, Line], x: str, y: str, *, log: str = "x") -> str:
    return _panels({"": curves}, x, y, log=log)


def _panels(curves_of: dict[str, dict[str, Line]], x: str, y: str, *, log: str = "x") -> str:
    if not any(points for curves in curves_of.values() for points in curves.values()):
        return ""
    made, row = panels(len(curves_of), 4.6 * len(curves_of) + 1.6)
    for axes, (title, curves) in zip(row, curves_of.items(), strict=True):
        for name, points in curves.items():
            if not points:
                continue
            at, means, spreads = (np.array(each) for each in zip(*points, strict=True))
            axes.plot(at, means, marker="o", markersize=4, label=name, color=_COLOURS[name])
            band = means - spreads, means + spreads
            axes.fill_between(at, *band, color=_COLOURS[name], alpha=0.15, linewidth=0)
        axes.set(xlabel=x, ylabel=y, title=title, **{f"{log}scale": "log"})
        if log == "x":
            axes.minorticks_off()
            ticks = sorted({at for points in curves.values() for at, *_ in points})
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], rotation=45)
    made.legend(
        *row[0].get_legend_handles_labels(),
        frameon=False,
        fontsize="small",
        loc="outside right center",
    )
    return svg(made)
