"""``frontier.json`` of a study's runs, and ``FRONTIER.md`` and its plots of ``frontier.json``."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exporters.files.atomic_file import write_json, write_text
from load_tests.calibrate.honest import HEAD
from load_tests.frontier.gains import Mean, controls, gain, honest, late, stolen
from load_tests.frontier.study import LABELS, Kind, Study
from load_tests.reporting.page import markdown
from load_tests.reporting.plots import panels, svg
from load_tests.runs.run import Known

NAME = "frontier.json"
#: What calibrated answers are to hold: gain over labels, share of what raw probabilities give where
#: that is more than ``WORTH``, and the area under the risk-coverage curve over the raw model's.
MOST_GAIN, MOST_SHARE, WORTH, MOST_AURC = 0.015, 0.4, 0.02, 1.15
#: Of agreement, that the answers of a plot take from a thief at most.
MOST_LOSS = 0.2
#: Agreement that the second half of a thief's steps adds where steps are short, and not queries.
STILL_LEARNING = 0.01
_RAW, _BAR = "raw probabilities", "calibrated, 10 levels"


def write(out: Path, studies: Sequence[Study], known: Known, *, command: str) -> Path:
    """Write what the runs say, and the page of it, and return its path."""
    found = {"command": command, "studies": [summary(study, known) for study in studies]}
    write_json(out / NAME, found, indent=1)
    return show(out)


def summary(study: Study, known: Known) -> dict[str, Any]:
    """Return what a study's runs say, as far as they are made, ready for JSON."""
    about = asdict(study)
    del about["kinds"], about["recorded"]
    about |= {"data": Path(study.data).stem, "late": late(study, known)}
    about["controls"] = _about_controls(study, study.budgets[0], known)
    return about | {"answers": [_about_kind(study, kind, known) for kind in _told_of(study, known)]}


def _told_of(study: Study, known: Known) -> list[Kind]:
    return [kind for kind in (LABELS, *study.kinds) if honest(study, kind, known)]


def _about_kind(study: Study, kind: Kind, known: Known) -> dict[str, Any]:
    thieves = {}
    for a_class in study.budgets:
        thief = study.chosen(kind, a_class, known)
        if thief is not None:
            thieves[str(study.queries(a_class))] = called(thief)
    return {
        "title": kind.title,
        "thieves": thieves,
        "honest": {key: asdict(one) for key, one in honest(study, kind, known).items()},
        "stolen": _told(study, kind, stolen, known),
        "gains": {} if kind is LABELS else _told(study, kind, gain, known),
    }


def _about_controls(study: Study, a_class: int, known: Known) -> dict[str, Any]:
    """Return the thieves of labels on the seeds that are told of, and gains over the best one."""
    tried = controls(study, a_class, known)
    if len(tried) < 2:
        return {}
    over = {
        kind.title: gain(study, kind, a_class, known, over=tried[0][0])
        for kind in _told_of(study, known)
        if kind is not LABELS
    }
    return {
        "queries": study.queries(a_class),
        "thieves": {called(change): asdict(one) for change, one in tried},
        "gains": {title: asdict(one) for title, one in over.items() if one is not None},
    }


def called(change: dict[str, Any]) -> str:
    """Return what a thief is called, by how it differs from the naive one."""
    words = [str(value) for key, value in change.items() if key != "labels_only"]
    return ", ".join(words) or "plain"


def _told(
    study: Study, kind: Kind, measure: Callable[..., Mean | None], known: Known
) -> dict[str, Any]:
    """Return a measure by queries, where there is one."""
    found = {study.queries(one): measure(study, kind, one, known) for one in study.budgets}
    return {str(queries): asdict(one) for queries, one in found.items() if one is not None}


def show(out: Path) -> Path:
    """Write the page and the plots of what ``frontier.json`` in a folder says; return its path."""
    said = json.loads((out / NAME).read_text())
    lines = [
        "# What an answer leaves to honest clients, and gives to thieves",
        "",
        f"Made by `{said['command']}`, of the runs that it has made; the numbers are in "
        f"[{NAME}]({NAME}). A gain is the agreement of the best thief of an answer minus that of "
        "the best thief of labels (whose agreement stands in the first row), who may smooth "
        "labels, train on rows without answers, demand consistency, distil and choose what to ask "
        "about as the others do. Of calibrated and rounded answers there are thieves who know the "
        "table or the rounding, and who ask about near-duplicates. Who is best is decided on a "
        "pilot seed or more, for each number of queries, of which nothing is told. Where a gain is "
        "negative, whoever gets the answer does better to take its label alone. Means of seeds; in "
        "brackets their standard errors. Of ECE, AURC and Brier less is better.",
    ]
    for study in said["studies"]:
        path = f"frontier_{study['data']}.svg"
        if not study["answers"]:
            continue
        write_text(out / path, plot(study))
        lines += ["", f"## {study['data']}, {study['classes']} classes", "", *_about(study)]
        lines += ["", f"![honest loss against gain]({path})", "", _table(study)]
        lines += [*_controls(study), *_bars(study)]
    page = out / "FRONTIER.md"
    write_text(page, "\n".join(lines) + "\n")
    return page


def _about(study: dict[str, Any]) -> list[str]:
    seeds = {one["seeds"] for each in study["answers"] for one in each["stolen"].values()}
    shown = " to ".join(str(one) for one in sorted({min(seeds), max(seeds)}))
    thieves = "; ".join(
        f"{one['title']}: {' / '.join(one['thieves'].values())}" for one in study["answers"]
    )
    trained = study["victim_steps"]
    victim = f"victims of {trained} steps of 64, each with a hold-off of its own" if trained else ""
    late, halves = study["late"], ""
    if late is not None:
        more = ": more would add more" if late > STILL_LEARNING else ""
        halves = f" (of one training, the second half of them added {late:+.3f}{more})"
    return [
        f"{study['architecture']}, {victim or 'one victim'}; thieves of {study['steps']:,} steps"
        f"{halves}, {shown} seeds and {study['pilot_seeds']} to choose by. The best thieves, with "
        f"ever more queries: {thieves}."
    ]


def _table(study: dict[str, Any]) -> str:
    budgets = sorted({int(at) for one in study["answers"] for at in one["gains"]})
    head = ("answers", *HEAD.values(), "P agreement", *(f"gain, {at:,} queries" for at in budgets))
    rows = []
    for one in study["answers"]:
        worth = [f"{one['honest'][key]['value']:.4f}" for key in HEAD]
        shown, sign = (one["gains"], "+") if one["gains"] else (one["stolen"], "")
        told = [
            _pair(each, sign) if each else "" for each in (shown.get(str(at)) for at in budgets)
        ]
        rows.append([one["title"], *worth, f"{one['honest']['agreement']['value']:.3f}", *told])
    return markdown(head, rows, "---:")


def _controls(study: dict[str, Any]) -> list[str]:
    """Return what the answers give over the thief of labels that is best on the told seeds."""
    found = study["controls"]
    if not found:
        return []
    thieves = (f"{name} {_pair(one)}" for name, one in found["thieves"].items())
    gains = (f"{title} {_pair(one, '+')}" for title, one in found["gains"].items())
    return [
        "",
        f"Thieves of labels on these very seeds, {found['queries']:,} queries: "
        f"{'; '.join(thieves)}. Over the first, chosen on the same seeds and so best by luck too: "
        f"{'; '.join(gains)}.",
    ]


def _pair(one: dict[str, Any], sign: str = "") -> str:
    return f"{one['value']:{sign}.3f} ({one['error']:.3f})"


def _bars(study: dict[str, Any]) -> list[str]:
    """Return, a line for each bar of calibrated answers, whether it holds, and by how much not."""
    named = {one["title"]: one for one in study["answers"]}
    if _RAW not in named or _BAR not in named:
        return []
    raw, bar = named[_RAW], named[_BAR]
    lines = ["", f"{_BAR.capitalize()}:", ""]
    worth = {key: (bar["honest"][key]["value"], raw["honest"][key]["value"]) for key in HEAD}
    lines.append(_bar("ECE at most the raw model's", *worth["ece"]))
    ours, theirs = worth["aurc"]
    lines.append(_bar(f"AURC at most {MOST_AURC} times the raw model's", ours, MOST_AURC * theirs))
    lines.append(_bar("P changes no class", 1 - bar["honest"]["agreement"]["value"], 0))
    for queries, one in bar["gains"].items():
        of_raw, most = raw["gains"].get(queries), MOST_GAIN
        if of_raw is not None and of_raw["value"] > WORTH:
            most = min(most, MOST_SHARE * of_raw["value"])
        lines.append(_bar(f"{int(queries):,} queries: gain at most {most:.4f}", one["value"], most))
    return lines


def _bar(what: str, value: float, most: float) -> str:
    holds = value <= most + 1e-12
    return f"- {'holds' if holds else 'DOES NOT HOLD'}: {what}: {value:.4f}"


def plot(study: dict[str, Any]) -> str:
    """Return the frontier as SVG: each measure of honest clients against the thief's gain.

    Answers that take more than ``MOST_LOSS`` from whoever learns them would hide the others.
    """
    made, row = panels(len(HEAD), 3.2 * len(HEAD), 3.6, sharey=True)
    with_gains = [one for one in study["answers"] if one["gains"]]
    fewest = [(one, one["gains"][min(one["gains"], key=int)]) for one in with_gains]
    told = [(one, each) for one, each in fewest if each["value"] > -MOST_LOSS]
    for axes, (key, title) in zip(row, HEAD.items(), strict=True):
        for colour, (one, each) in enumerate(told):
            worth = one["honest"][key]
            axes.errorbar(
                worth["value"], each["value"], xerr=worth["error"], yerr=each["error"],
                fmt="o", color=f"C{colour}", label=one["title"],
            )  # fmt: skip
        axes.axhline(0, color="0.4", linestyle=":", linewidth=1)
        axes.set_xlabel(title)
    row[0].set_ylabel("gain over the best label thief,\nfewest queries")
    made.legend(
        *row[0].get_legend_handles_labels(),
        frameon=False, fontsize="small", loc="outside lower center", ncols=3,
    )  # fmt: skip
    return svg(made)
