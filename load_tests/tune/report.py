"""What was found: a table, a plot and JSON."""

from typing import Any

from load_tests.reporting.plots import figure, svg
from load_tests.tune.candidates import Candidate
from load_tests.tune.tuning import Trained, Tuning

HEAD = ("beta", "gamma", "margin", "decimals", "cosine", "top-5", "stolen", "best adaptive", "")


def as_dict(tuning: Tuning, chosen: Candidate, *, candidates: int) -> dict[str, Any]:
    """Return everything that was found, ready for JSON.

    ``stolen`` is the agreement of the naive thief's substitute with the classifier,
    ``best_adaptive`` the highest of any thief's, who keeps only the labels among them. ``again`` is
    what the naive thief gets from the recommended setting with a seed that it was not chosen by.
    """
    labels = tuning.stolen(tuning.labels)["agreement"]
    trained = tuning.trained()
    frontier = {one.candidate for one in tuning.frontier()}
    return {
        "recommended": chosen.setting,
        "again": _rounded(tuning.stolen(tuning.again(chosen))),
        "undefended": _rounded(tuning.undefended),
        "labels_only": round(labels, 4),
        "candidates": candidates,
        "trainings": tuning.trainings(),
        "settings": [_setting(one, labels) | {"frontier": one.candidate in frontier}
                     for one in trained],
    }  # fmt: skip


def table_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the table as text, the setting that keeps most first."""
    undefended = report["undefended"]["agreement"]
    rows: list[tuple[str, ...]] = [
        ("none", "", "", "", "1.000", "1.000", f"{undefended:.3f}", "", "no defence")
    ]
    for one in report["settings"]:
        notes = []
        if _recommended(one, report):
            notes.append("recommended")
        elif not one["frontier"]:
            notes.append("beaten by another")
        best = one["best_adaptive"]
        rows.append(
            (
                f"{one['beta']:g}",
                f"{one['gamma']:g}",
                f"{one['margin']:g}",
                str(one["decimals"] or ""),
                f"{one['cosine']:.3f}",
                f"{one['top5_overlap']:.3f}",
                f"{one['stolen']['agreement']:.3f}",
                "" if best is None else f"{best['agreement']:.3f} {best['thief']}",
                ", ".join(notes),
            )
        )
    return rows


def plot(report: dict[str, Any]) -> str:
    """Return the frontier as SVG: what honest users keep against what thieves get."""
    made, axes = figure(6.4, 4.4)
    for label, chosen, marker in (
        ("naive thief, on the frontier", lambda one: one["frontier"], "o"),
        ("naive thief, beaten", lambda one: not one["frontier"], "x"),
    ):
        shown = [one for one in report["settings"] if chosen(one)]
        axes.plot(
            [one["cosine"] for one in shown],
            [one["stolen"]["agreement"] for one in shown],
            marker, color="C0", label=label,
        )  # fmt: skip
    tried = [one for one in report["settings"] if one["best_adaptive"] is not None]
    axes.plot(
        [one["cosine"] for one in tried],
        [one["best_adaptive"]["agreement"] for one in tried],
        "^", color="C3", label="best adaptive thief",
    )  # fmt: skip
    axes.axhline(report["undefended"]["agreement"], color="0.7", linestyle="--", label="no defence")
    axes.axhline(report["labels_only"], color="C1", linestyle=":", label="labels only")
    for one in report["settings"]:
        if _recommended(one, report):
            at = (one["cosine"], one["stolen"]["agreement"])
            axes.annotate(
                f"recommended: beta {one['beta']:g}, gamma {one['gamma']:g}", at,
                xytext=(0, 12), textcoords="offset points", ha="center",
            )  # fmt: skip
    axes.set(
        xlabel="utility kept: cosine of the answers with the classifier's own",
        ylabel="agreement of the substitute",
        ylim=(0, 1.05),
    )
    axes.legend(fontsize="small")
    return svg(made)


def _recommended(one: dict[str, Any], report: dict[str, Any]) -> bool:
    return all(one[key] == value for key, value in report["recommended"].items())


def _setting(one: Trained, labels: float) -> dict[str, Any]:
    thieves = {"labels": labels, **one.adaptive}
    best = max(thieves, key=lambda each: thieves[each])
    return {
        **one.candidate.setting,
        "cosine": round(one.candidate.cosine, 4),
        "top5_overlap": round(one.candidate.top5_overlap, 4),
        "lead": round(one.candidate.lead, 5),
        "stolen": _rounded(one.naive),
        "adaptive": {key: round(value, 4) for key, value in one.adaptive.items()},
        "best_adaptive": {"thief": best, "agreement": round(thieves[best], 4)}
        if one.adaptive
        else None,
    }


def _rounded(measures: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 4) for key, value in measures.items()}
