"""COSTS.md and its plots, from what ``deploy.benchmarks.cost`` has measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from exporters.files.atomic_file import write_text
from load_tests.reporting.page import markdown
from load_tests.reporting.plots import figure, svg

_Rows = list[dict[str, Any]]
#: Of a score that is read and an answer that is written.
_BYTES = 8


def write(out: Path) -> Path:
    """Write the page of all parts that the folder has, and return its path."""
    lines = [
        "# How cost grows",
        "",
        "Made by `python -m deploy.benchmarks.cost`; each part's numbers are in the JSON file "
        "beside it, with the command.",
    ]
    for part, (title, draw, say) in _PARTS.items():
        path = out / f"{part}.json"
        if not path.is_file():
            continue
        content = json.loads(path.read_text())
        write_text(out / f"{part}.svg", draw(content["rows"]))
        machine = content["machine"]
        about = f"{machine['cpu_count']} CPUs, {machine['cpu']}, seed {content['seed']}"
        lines += ["", f"## {title}", "", f"![{title}]({part}.svg)", "", say(content["rows"])]
        lines += [f"<sub>`{content['command']}`: {about}.</sub>"]
    path = out / "COSTS.md"
    write_text(path, "\n".join(lines) + "\n")
    return path


def _draw_step(rows: _Rows) -> str:
    made, axes = figure(6.4, 4.4)
    styles = {1: ":", 32: "--", 256: "-"}
    for colour, way in enumerate(rows[0]["seconds"]):
        for count, style in styles.items():
            some = [row for row in rows if row["rows"] == count]
            axes.loglog(
                [row["classes"] for row in some],
                [row["seconds"][way] * 1e3 for row in some],
                style, color=f"C{colour}", label=f"{way}, {count} rows",
            )  # fmt: skip
    axes.set(xlabel="classes, K", ylabel="milliseconds for a batch")
    axes.legend(fontsize="x-small")
    return svg(made)


def _say_step(rows: _Rows) -> str:
    ways = list(rows[0]["seconds"])
    counted = rows[0].get("kernel_instructions") is not None
    lines = []
    for row in rows:
        scores = row["classes"] * row["rows"]
        each = [f"{row['seconds'][way] / scores * 1e9:,.2f}" for way in ways]
        if counted:
            each.append(f"{row['kernel_instructions'] / scores:,.1f}")
        lines.append([f"{row['classes']:,}", str(row["rows"]), *each])
    heads = ["K", "rows", *ways, *(["instructions"] if counted else [])]
    return (
        "Nanoseconds of a score. Below some thousand scores a call costs what a call costs; from "
        f"there on cost is the number of scores.{_say_roof(rows)}\n\n"
        + markdown(heads, lines, "---:")
    )


def _say_roof(rows: _Rows) -> str:
    """Return how far the kernel is from memory's bandwidth, where a copy was timed beside it."""
    if not {"copy", "kernel"} <= set(rows[0]["seconds"]):
        return ""
    last = {row["classes"]: row for row in rows if row["classes"] in (10, 100, 1000)}
    said = []
    for classes, row in last.items():
        scores = classes * row["rows"]
        kernel, copy = (_BYTES * scores / row["seconds"][way] / 1e9 for way in ("kernel", "copy"))
        said.append(f"{kernel:.1f} of {copy:.1f} at K = {classes:,}")
    return (
        f" A copy into a new array, {_BYTES} bytes moved a score, is what no step goes below: with "
        f"{max(row['rows'] for row in rows)} rows the kernel moves "
        f"{', '.join(said)} GB/s. The rest is arithmetic: an exponential, a power, a quotient."
    )


def _draw_start(rows: _Rows) -> str:
    made, axes = figure(6.4, 2.8)
    names = [row["command"] for row in rows]
    axes.barh(names, [_median(row, "seconds") for row in rows], color="C0")
    left = 0.0
    for colour, stage in enumerate(rows[-1]["rounds"][0]["stages"], start=1):
        took = float(np.median([one["stages"][stage] for one in rows[-1]["rounds"]]))
        axes.barh(names[-1], took, left=left, color=f"C{colour}", label=f"serve: {stage}")
        left += took
    axes.invert_yaxis()
    axes.set(xlabel="seconds, median")
    axes.legend(fontsize="x-small")
    return svg(made)


def _say_start(rows: _Rows) -> str:
    lines = []
    for row in rows:
        seconds = [one["seconds"] for one in row["rounds"]]
        cpu = f"{_median(row, 'cpu_seconds'):.2f}" if "cpu_seconds" in row["rounds"][0] else "-"
        lines.append(
            [f"`{row['command']}`", f"{np.median(seconds):.2f}", f"{max(seconds):.2f}", cpu]
        )
    alone, serve = rows[-2:]
    pairs = zip(serve["rounds"], alone["rounds"], strict=True)
    ratio = np.median([one["seconds"] / other["seconds"] for one, other in pairs])
    stages = "; ".join(
        f"{stage} {np.median([one['stages'][stage] for one in serve['rounds']]):.2f} s"
        for stage in serve["rounds"][0]["stages"]
    )
    return (
        f"Of {len(serve['rounds'])} rounds by turns. `serve` is ready after {ratio:.2f} times what "
        f"Triton alone takes with the same models. It waits for: {stages}.\n\n"
        + markdown(("command", "median, s", "longest, s", "CPU, s"), lines, "---", "---:")
    )


def _median(row: dict[str, Any], key: str) -> float:
    return float(np.median([one[key] for one in row["rounds"]]))


def _draw_protect(rows: _Rows) -> str:
    made, axes = _lines(rows, "layout", "mebibytes", "seconds", "{}")
    axes.set(xlabel="size of the model, MiB", ylabel="seconds of protect")
    axes.set(xscale="log", yscale="log")
    return svg(made)


def _lines(rows: _Rows, by: str, x: str, y: str, label: str) -> Any:
    """Return a figure and its axes, with a line for each value of a key."""
    made, axes = figure(6.4, 4.4)
    for value in dict.fromkeys(row[by] for row in rows):
        some = [row for row in rows if row[by] == value]
        shown = [[row[key] for row in some] for key in (x, y)]
        axes.plot(*shown, "o-", label=label.format(value))
    axes.legend()
    return made, axes


def _say_protect(rows: _Rows) -> str:
    lines = [
        [f"{row['mebibytes']:,}", row["layout"], f"{row['seconds']:.1f}", f"{row['peak_mib']:,.0f}"]
        for row in rows
    ]
    return (
        "Above 64 MiB the weights stand in a file of their own, which is copied and never parsed."
        "\n\n"
        + markdown(("MiB", "layout", "seconds", "peak memory, MiB"), lines, "---:", "---", "---:")
    )


def _draw_attack(rows: _Rows) -> str:
    made, axes = _lines(rows, "batch", "concurrency", "queries_per_second", "batch {}")
    axes.set_xscale("log", base=2)
    axes.set(xlabel="requests in flight", ylabel="queries per second", ylim=(0, None))
    return svg(made)


def _say_attack(rows: _Rows) -> str:
    lines = ""
    for batch in dict.fromkeys(row["batch"] for row in rows):
        some = [row for row in rows if row["batch"] == batch]
        most = max(row["queries_per_second"] for row in some)
        knee = next(row for row in some if row["queries_per_second"] >= 0.9 * most)
        lines += (
            f"- Batch {batch}: {most:,.0f} queries per second; nine tenths of it at "
            f"{knee['concurrency']} requests in flight.\n"
        )
    return lines


_PARTS = {
    "step": ("The step", _draw_step, _say_step),
    "start": ("Until it begins", _draw_start, _say_start),
    "protect": ("protect", _draw_protect, _say_protect),
    "attack": ("The attack driver", _draw_attack, _say_attack),
}
