"""A report for people: one HTML file with its table and its plots inside."""

import html
from typing import Any

from load_tests.calibrate import calibration_report
from load_tests.reporting.page import html_table, page
from load_tests.reporting.plots import draw_served, figure, svg
from postprocess.parameters import Parameters

_Rows = list[tuple[str, ...]]

#: Whose answers: the classifier's own, the defence's, and those of calibrated levels.
HEAD = ("unprotected", "protected", "calibrated")

_STOLEN = "stolen_agreement_"
#: Of each row: what it says, the key of each of ``HEAD``'s numbers (or the number, where it is
#: known), and their decimals.
_TABLE: tuple[tuple[str, tuple[str | float | None, ...], int], ...] = (
    (
        "Accuracy on the test set",
        ("victim_accuracy", "protected_accuracy", "calibrated_accuracy"),
        3,
    ),
    ("Agreement with the victim (top-1)", (1.0, "protected_agreement", "calibrated_agreement"), 3),
    ("Cosine similarity to the victim", (1.0, "cosine", None), 3),
    ("Mean absolute error per class", (0.0, "mae", None), 3),
    ("KL(victim || protected), nats", (0.0, "kl_nats_from_victim", None), 2),
    ("KL(protected || victim), nats", (0.0, "kl_nats_to_victim", None), 2),
    ("Confidence off by, on average (ECE)", ("ece",) * 3, 3),
    ("Errors left when abstaining (AURC)", ("aurc",) * 3, 4),
    ("Stolen: agreement of a substitute", tuple(_STOLEN + which for which in HEAD), 3),
    ("Stolen by a thief who keeps only labels", (None, _STOLEN + "labels_only", None), 3),
    ("Latency p50, ms", tuple(f"latency_p50_ms_{which}" for which in HEAD), 2),
    ("Latency p99, ms", tuple(f"latency_p99_ms_{which}" for which in HEAD), 2),
)


def table_rows(report: dict[str, Any]) -> _Rows:
    """Return the demo's table as text: what, and the number of each of ``HEAD``."""

    def shown(what: str | float | None, which: str, decimals: int) -> str:
        value = report["honest"]["answers"][which].get(what, what)
        if isinstance(value, str):
            value = report[value]
        return "" if value is None else f"{value:.{decimals}f}"

    return [
        (what, *(shown(one, which, decimals) for one, which in zip(each, HEAD, strict=True)))
        for what, each, decimals in _TABLE
    ]


def caption(report: dict[str, Any]) -> str:
    """Return one line that says under which conditions the table's numbers were taken."""
    return (
        f"{report['dataset']}: beta {report['beta']:g}, gamma {report['gamma']:g}, margin "
        f"{report['margin']:g}, seed {report['seed']}; query budget {report['query_budget']}, "
        f"substitutes trained for {report['substitute_steps']} steps of 64; latency of "
        f"{report['latency_requests']} interleaved requests each, batch 1, one client; ECE and "
        f"AURC of {report['honest']['judged_rows']} test rows, the others made the levels; "
        f"Triton {report['triton_version']}, {report['cpu_count']} CPUs; "
        f"{report['seconds']:.0f} s in all"
    )


def to_html(report: dict[str, Any]) -> str:
    """Return the whole report as one HTML page that loads nothing from anywhere."""
    return page(
        "Reverse Sigmoid, served by Triton",
        html_table(("", *HEAD), table_rows(report)),
        f'<p class="caption">{html.escape(caption(report))}</p>',
        _WHAT_IT_DOES,
        f"<figure>{_curve(report['beta'], report['gamma'])}</figure>",
        f"<figure>{_bars(report)}</figure>",
        _WHAT_IS_LEFT,
        f"<figure>{calibration_report.plot(report['honest'])}</figure>",
        command=report["command"],
    )


def _curve(beta: float, gamma: float) -> str:
    """Figure 1: the perturbation and the deceptive probability over the true one, as SVG."""
    parameters = Parameters(
        beta=beta, gamma=gamma, scores="probabilities", preserve_top1=False, margin=0
    )
    made, axes = figure()
    draw_served(axes, {"y - r(y), before the cap": parameters}, y_label="y, the victim's")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"Reverse Sigmoid, beta {beta:g}, gamma {gamma:g}, two classes")
    axes.legend(frameon=False)
    return svg(made)


def _bars(report: dict[str, Any]) -> str:
    bars = {
        "no defence": report[_STOLEN + "unprotected"],
        "protected,\nprobabilities kept": report[_STOLEN + "protected"],
        "protected,\nlabels only": report[_STOLEN + "labels_only"],
        "calibrated": report[_STOLEN + "calibrated"],
    }
    made, axes = figure()
    drawn = axes.bar(
        list(bars), list(bars.values()), color=["0.7", "tab:blue", "tab:orange", "tab:green"]
    )
    axes.bar_label(drawn, fmt="%.3f")
    axes.axhline(1 / report["classes"], color="0.4", linestyle=":", linewidth=1)
    axes.set(ylabel="agreement of the substitute", ylim=(0, 1.1))
    axes.set_title(f"Stolen with {report['query_budget']} queries (dotted: chance)")
    return svg(made)


_WHAT_IT_DOES = """\
<p>The thief sees only probabilities that keep the right class on top, and learns a wrong model
from them. A thief who throws the probabilities away and keeps the labels is not stopped: no
defence that answers with the right class can do that.</p>"""

_WHAT_IS_LEFT = """\
<p>What honest clients can do with the answers: where the dots are on the line, an answer that says
90 % is right nine times of ten, and a client can act on it or abstain. Calibrated answers give each
class one of ten levels of confidence, and a thief about what the label gives.</p>"""
