"""A campaign's report for people: one HTML page with its table and its curves inside."""

import html
from collections.abc import Callable
from typing import Any

from load_tests.reporting.page import html_table, page
from load_tests.reporting.plots import figure, svg
from load_tests.stealing import verdict
from load_tests.stealing.losses import LOSSES
from load_tests.stealing.thief import LABELS, NAIVE
from load_tests.stealing.verdict import Result, budgets, curve

HEAD = ("thief", "queries", "agreement", "accuracy", "cosine", "MAE", "KL(M || S)", "KL(S || M)")

#: Panel title, and which results are in it, in the shape of the paper's Figures 2, 5, 6 and 7.
PANELS: tuple[tuple[str, Callable[[Result], bool]], ...] = (
    ("Which queries steal best (no defence)", lambda each: each["unprotected"]),
    (
        "Which queries steal best (protected)",
        lambda each: each["name"] == each["attack"],
    ),
    (
        "Probabilities or labels",
        lambda each: each["attack"] == NAIVE.attack and not _undoes(each),
    ),
    (
        "Thieves who undo the defence",
        lambda each: _undoes(each) or each["name"] == LABELS.name,
    ),
)


def table_rows(results: list[Result]) -> list[tuple[str, ...]]:
    """Return the table as text: a row per thief and budget, best first within a budget.

    A star marks what no outsider can do: asking the victim itself, or learning from its answers.
    """
    ordered = sorted(results, key=lambda result: (result["queries"], -result["agreement"]))
    return [
        (
            result["name"] + ("" if result["outsider"] else " *"),
            str(result["queries"]),
            f"{result['agreement']:.3f}",
            f"{result['accuracy']:.3f}" if "accuracy" in result else "-",
            f"{result['cosine']:.3f}",
            f"{result['mae']:.4f}",
            f"{result['kl_nats_from_victim']:.2f}",
            f"{result['kl_nats_to_victim']:.2f}",
        )
        for result in ordered
    ]


def summary_lines(report: dict[str, Any]) -> list[str]:
    """Return the report's conclusions, a sentence each."""
    lines = []
    for at in report["summary"]["budgets"]:
        if at["best"] is None:
            continue
        line = f"{at['queries']} queries: best attack {at['best']} {at['best_agreement']:.3f}"
        if at["honest_score"] is not None:
            line += (
                f", best label thief {at['best_label_thief']} {at['labels_only']:.3f}: "
                f"honest score {at['honest_score']:+.3f}"
            )
        lines.append(line)
    tried = [name for name, points in verdict.curves(report["results"]).items() if points]
    for need in report["summary"]["queries_needed"]:
        told = [f"{name.replace('_', ' ')} {_queries(need, name)}" for name in tried]
        if any(count is not None for count in need["queries"].values()):
            lines.append(f"agreement {need['agreement']:.2f} takes: {', '.join(told)}")
    return lines


def caption(report: dict[str, Any]) -> str:
    """Return one line that says under which conditions the numbers were taken."""
    settings, protection = report["settings"], report["protection"]
    known = f"know its table of calibrated answers, {settings['table']}"
    if not settings["table"]:
        known = (
            f"take the defence to be beta {settings['beta']:g}, gamma {settings['gamma']:g}, "
            f"margin {settings['margin']:g}"
        )
    if report["unknown_table"]:
        known += ", though its answers seem calibrated (--calibration names a table that they know)"
    return (
        f"{settings['model']} at {settings['url']}, {settings['data'] or settings['query_set']}, "
        f"{report['classes']} classes; judged by {protection['judged_by']} on "
        f"{report['test_images']} test {'rows' if settings['query_set'] else 'images'}; "
        f"adversaries {known}; substitutes {settings['architecture']}, {settings['steps']} steps "
        f"of 64; seed {settings['seed']}"
    )


def to_html(report: dict[str, Any]) -> str:
    """Return the whole report as one HTML page that loads nothing from anywhere."""
    panels = [
        f"<figure>{panel}</figure>"
        for title, within in PANELS
        if (panel := _panel(report, title, [each for each in report["results"] if within(each)]))
    ]
    protection = report["protection"]
    lines = "\n".join(f"<li>{html.escape(line)}</li>" for line in summary_lines(report))
    accuracy = f"accuracy {protection['accuracy']:.3f}, " if "accuracy" in protection else ""
    honest = (
        f"The endpoint's own answers: agreement {protection['agreement']:.3f}, {accuracy}"
        f"cosine {protection['cosine']:.3f}, KL(M || P) "
        f"{protection['kl_nats_from_victim']:.2f} nats."
    )
    return page(
        "What a thief gets",
        f'<p class="caption">{html.escape(caption(report))}</p>',
        f"<ul>\n{lines}\n</ul>",
        f"<p>{html.escape(honest)}</p>",
        *panels,
        "<p>Dotted: chance. A star marks what no outsider can do. KL in nats.</p>",
        html_table(HEAD, table_rows(report["results"])),
        command=report["command"],
    )


def _queries(need: dict[str, Any], name: str) -> str:
    count, dollars = need["queries"][name], need["dollars"][name]
    if count is None:
        return "not reached"
    return f"{count:.0f} (${dollars[0]:.2f} to ${dollars[1]:.2f})"


def _undoes(result: Result) -> bool:
    return bool(result["recover"]) or LOSSES[result["loss"]].behind_defence


def _panel(report: dict[str, Any], title: str, results: list[Result]) -> str:
    curves = {each["name"]: curve(results, each["name"]) for each in results}
    if not curves:
        return ""
    made, axes = figure(width=7.4)
    for name, points in curves.items():
        style = "--" if name == LABELS.name else "-"
        axes.plot(*zip(*points, strict=True), style, marker="o", markersize=4, label=name)
    axes.axhline(1 / report["classes"], color="0.4", linestyle=":", linewidth=1)
    axes.set_xscale("log")
    ticks = budgets(report["results"])
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="queries", ylabel="agreement of the substitute", ylim=(0, 1.02), title=title)
    # Beside the curves: wherever it stood among them it would hide one.
    made.legend(frameon=False, fontsize="small", loc="outside right center")
    return svg(made)
