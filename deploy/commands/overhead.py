"""``reverse-sigmoid overhead``: what the defence costs, as a table or JSON."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.table import Table

from deploy.commands import asking, options
from deploy.commands.console import command_line, out_console, say
from deploy.commands.progress import stages
from exporters.files.atomic_file import refuse_unwritable, write_json
from load_tests.reporting.page import digits
from postprocess.errors import InputError

#: Measure to how a person reads it.
TITLES = {
    "latency_p50_ms": "p50, ms",
    "latency_p95_ms": "p95, ms",
    "latency_p99_ms": "p99, ms",
    "requests_per_second": "requests/s",
    "rows_per_second": "rows/s",
}
#: How far our loop's median may be from tritonclient's own, as a share of it.
MEASURING_OVERHEAD = 0.10


@dataclass(frozen=True, kw_only=True)
class OverheadCommand:
    """Measure latency and throughput of a protected and an unprotected model, interleaved."""

    url: Annotated[str, typer.Option(metavar="HOST:PORT", help="Triton's gRPC endpoint.")]
    protected: Annotated[str, typer.Option(metavar="MODEL", help="The ensemble that clients call.")]
    unprotected: Annotated[str, typer.Option(metavar="MODEL", help="The classifier behind it.")]
    batch: asking.Batches = asking.BATCHES
    concurrency: asking.Concurrencies = asking.CONCURRENCIES
    seconds: Annotated[
        float, typer.Option(help="Seconds of load on each model for each batch and concurrency.")
    ] = 10
    rounds: Annotated[
        int,
        typer.Option(
            min=2,
            help="Slices these seconds are cut into, models taking turns; fewer and longer ones "
            "where requests take long.",
        ),
    ] = 100
    seed: options.Seed = 0
    data: asking.SentImages = ""
    data_dir: asking.DataDir = None
    query_set: asking.OwnRows = ""
    under_attack: Annotated[
        bool,
        typer.Option("--under-attack", help="Measure all once more while a thief queries."),
    ] = False
    api_key: asking.ApiKey = None
    tls_ca: asking.TlsCa = None
    as_json: options.AsJson = False
    out: asking.ReportFile = None
    force: options.Force = False

    def run(self) -> None:
        from load_tests.asking.endpoint import Access
        from load_tests.timing.overhead import OverheadOptions, measure

        if self.out is not None and self.out.exists() and not self.force:
            raise InputError(f"{self.out} exists; give --force to replace it")
        if self.out is not None:
            refuse_unwritable(self.out, "--out")
        access = Access(self.api_key, self.tls_ca)
        asked = options.settings(OverheadOptions, self, access=access, **asking.cells(self))
        report = measure(asked, stages=stages)
        report["command"] = command_line()
        if self.out is not None:
            write_json(self.out, report)
        if self.as_json:
            print(json.dumps(report, indent=2))
            return
        out_console.print(_table(report, "cells", "Nobody else queries"))
        if self.under_attack:
            out_console.print(_table(report, "cells_under_attack", "Under attack"))
        for line in _lines(report):
            say(line)


def _table(report: dict[str, Any], cells: str, title: str) -> Table:
    table = Table(title=title)
    for heading in ("batch", "at once", "", "unprotected", "protected", "ratio", "95 %"):
        table.add_column(heading, justify="right" if heading else "left")
    for cell in report[cells]:
        where = [str(cell["batch"]), str(cell["concurrency"])]
        for measure, title_ in TITLES.items():
            ratio = cell["ratio"][measure]
            values = (cell["unprotected"][measure], cell["protected"][measure], ratio["value"])
            interval = f"{digits(ratio['low'])} - {digits(ratio['high'])}"
            table.add_row(*where, title_, *map(digits, values), interval)
            where = ["", ""]
        errors = [cell[role]["errors"] for role in ("unprotected", "protected")]
        if any(errors):
            table.add_row("", "", "errors", *map(str, errors), "", "")
        table.add_section()
    return table


def _lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield what else the report says, for people."""
    for one in report["skipped"]:
        yield f"skipped batch {one['batch']}, {one['concurrency']} at once: {one['why']}"
    ours = report["measuring_overhead"]
    ratio = ours["ratio"]
    yield (
        f"Measuring overhead: p50 {digits(ours['latency_p50_ms'])} ms, a bare tritonclient loop "
        f"{digits(ours['bare_latency_p50_ms'])} ms, ratio {digits(ratio['value'])} "
        f"({digits(ratio['low'])} to {digits(ratio['high'])}), batch {ours['batch']}, 1 at once"
    )
    if ratio["value"] is None or abs(ratio["value"] - 1) > MEASURING_OVERHEAD:
        yield "warning: that is more than 10 percent; measure longer, or on a quieter machine"
    if "thief" in report:
        thief = report["thief"]
        yield (
            f"The thief: {thief['concurrency']} at once, batch {thief['batch']}, "
            f"{digits(thief['rows_per_second'])} rows/s, {thief['errors']} errors"
        )
    yield (
        f"{report['data']} input, seed {report['seed']}, {report['seconds']:g} s of each model in "
        f"up to {report['rounds']} rounds, 95 % intervals by bootstrap over rounds, "
        f"{report['cpu_count']} CPUs, Triton {report['triton_version']}"
    )
