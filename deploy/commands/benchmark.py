"""``reverse-sigmoid benchmark``: every way to serve a protected classifier, side by side."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.benchmarks import rivals
from deploy.commands.options import (
    MOST_CLIENTS,
    MOST_ROWS,
    Seed,
    Sent,
    command_line,
    counts,
    err_console,
    out_console,
    say,
)
from exporters.atomic_file import write_text
from postprocess.errors import InputError

#: Characters that the table takes.
WIDTH = 110


def benchmark(
    *,
    repository: Annotated[
        Path, typer.Option(help="It holds the model in the ensemble layout; it is only read.")
    ],
    model: Annotated[str, typer.Option("--model", help="The protected model.")],
    ways: Annotated[
        str, typer.Option(help=f"What to measure, some of: {', '.join(rivals.WAYS)}.")
    ] = ",".join(rivals.WAYS),
    batch: Annotated[str, typer.Option(help="Rows per request, in turn.")] = "1,32,256",
    concurrency: Annotated[str, typer.Option(help="Clients at once, in turn.")] = "1,8,32",
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Of each way in each cell, over all rounds.")
    ] = 6,
    rounds: Annotated[
        int, typer.Option(min=2, help="Slices these seconds are cut into, ways taking turns.")
    ] = 40,
    seed: Seed = 0,
    data: Sent = "",
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the data sets' files, see export.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON report here.")] = None,
) -> None:
    """Measure a protected model beside its classifier alone and other ways to defend it.

    All of them are written to a temporary repository and served by one Triton, on free ports.
    """
    from deploy.benchmarks.serving import ServingOptions, run
    from deploy.commands.progress import Stages

    chosen = tuple(part.strip() for part in ways.split(","))
    for way in chosen:
        if way not in rivals.WAYS:
            raise InputError(f"--ways: expected some of {', '.join(rivals.WAYS)}, got {way!r}")
    if rivals.ART in chosen and find_spec("art") is None:
        raise InputError(
            f"--ways {rivals.ART}: needs art, which is not installed: "
            "pip install 'triton-reverse-sigmoid[bench]', or leave it out"
        )
    if out is not None and out.exists():
        raise InputError(f"{out} exists")
    report = run(
        ServingOptions(
            repository=repository,
            model=model,
            ways=(rivals.VICTIM, *(way for way in chosen if way != rivals.VICTIM)),
            batches=counts(batch, "--batch", MOST_ROWS),
            concurrencies=counts(concurrency, "--concurrency", MOST_CLIENTS),
            seconds=seconds,
            rounds=rounds,
            seed=seed,
            data=data,
            data_dir=data_dir,
        ),
        stages=lambda total: Stages(err_console, total).stage,
    )
    report["command"] = command_line()
    text = json.dumps(report, indent=1, allow_nan=False)
    if out is not None:
        write_text(out, text + "\n")
    if as_json:
        print(text)
        return
    Console(width=max(out_console.width, WIDTH)).print(_table(report))
    machine, versions = report["machine"], report["versions"]
    say(
        "Ratios to the victim alone, with 95 % intervals by bootstrap over rounds; "
        f"{data or 'random'} input, seed {seed}, {machine['cpu_count']} CPUs, {machine['cpu']}, "
        + ", ".join(f"{name} {at}" for name, at in versions.items())
    )


def _table(report: dict[str, Any]) -> Table:
    table = Table(title=f"{report['model']}: what each way costs")
    for heading in ("batch", "at once", "way", "p50, ms", "ratio", "p99, ms", "rows/s", "ratio",
                    "CPU s / 1000"):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for cell in report["cells"]:
        where = [str(cell["batch"]), str(cell["concurrency"])]
        for way, found in cell["ways"].items():
            table.add_row(
                *where,
                way if not found["errors"] else f"{way}, {found['errors']} errors",
                _digits(found["latency_p50_ms"]),
                _interval(found["ratio"]["latency_p50_ms"]),
                _digits(found["latency_p99_ms"]),
                _digits(found["rows_per_second"]),
                _interval(found["ratio"]["rows_per_second"]),
                _digits(found["cpu_seconds_per_1000_rows"]),
            )
            where = ["", ""]
        table.add_section()
    return table


def _interval(ratio: dict[str, float | None]) -> str:
    value, low, high = (ratio[key] for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "-"
    return f"{value:.2f} ({low:.2f}-{high:.2f})"


def _digits(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
