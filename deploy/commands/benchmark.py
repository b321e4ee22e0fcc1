"""``reverse-sigmoid benchmark``: every way to serve a protected classifier, side by side."""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from deploy.benchmarks import rivals, threads
from deploy.commands import asking, options
from deploy.commands.console import command_line, err_console, say, show
from deploy.commands.progress import stages
from deploy.repository import model_config
from exporters.files.atomic_file import refuse_unwritable, write_json
from load_tests.reporting.page import digits
from postprocess.errors import InputError

#: Characters that the table takes.
WIDTH = 100


@dataclass(frozen=True, kw_only=True)
class BenchmarkCommand:
    """Measure a protected model beside its classifier alone and other ways to defend it.

    All of them are written to a temporary repository and served by one Triton, on free ports.
    """

    repository: Annotated[
        Path,
        typer.Option(
            help="It holds the model in the ensemble layout; it is only read, except by "
            "--choose-threads."
        ),
    ]
    model: options.PublicModel
    ways: Annotated[
        str,
        typer.Option(
            help=f"What to measure, some of: {', '.join(rivals.WAYS)}; and, of the victim alone "
            f"with other threads: {', '.join(rivals.THREADS)}."
        ),
    ] = ",".join(rivals.WAYS)
    choose_threads: Annotated[
        bool,
        typer.Option(
            "--choose-threads",
            help="Measure the victim alone with other threads and instances, and write what pays "
            "into its config.pbtxt, with the reason.",
        ),
    ] = False
    batch: asking.Batches = asking.BATCHES
    concurrency: asking.Concurrencies = asking.CONCURRENCIES
    seconds: Annotated[
        float,
        typer.Option(
            min=0.1,
            help="Seconds of load on each way for each batch and concurrency, over all rounds.",
        ),
    ] = 6
    rounds: Annotated[
        int, typer.Option(min=2, help="Slices these seconds are cut into, ways taking turns.")
    ] = 40
    seed: options.Seed = 0
    data: asking.SentImages = ""
    data_dir: asking.DataDir = None
    as_json: options.AsJson = False
    out: asking.ReportFile = None

    def run(self) -> None:
        from deploy.benchmarks.serving import ServingOptions, run

        if self.out is not None and self.out.exists():
            raise InputError(f"--out {self.out}: exists; choose another")
        if self.out is not None:
            refuse_unwritable(self.out, "--out")
        asked = options.settings(ServingOptions, self, ways=self._ways(), **asking.cells(self))

        def keep(report: dict[str, Any]) -> None:
            if self.out is not None:
                write_json(self.out, {**report, "command": command_line()}, indent=1)

        report = run(asked, stages=stages, keep=keep)
        for one in report["skipped"]:
            cell = f"batch {one['batch']}, {one['concurrency']} at once"
            say(f"skipped {one['way']}, {cell}: {one['why']}", console=err_console)
        if not report["cells"]:
            raise InputError("benchmark: no cell could be measured, see above")
        if self.choose_threads:
            choice, config = threads.choose(report), self._victim_config()
            choice.write(config)
            say(f"{config}: {choice.reason}", console=err_console)
        if self.as_json:
            print(json.dumps({**report, "command": command_line()}, indent=1))
            return
        show(_table(report), width=WIDTH)
        machine, versions = report["machine"], report["versions"]
        say(
            "Ratios to the victim alone, with 95 % intervals by bootstrap over rounds; "
            f"{self.data or 'random'} input, seed {self.seed}, {machine['cpu_count']} CPUs, "
            f"{machine['cpu']}, " + ", ".join(f"{name} {at}" for name, at in versions.items())
        )

    def _ways(self) -> tuple[str, ...]:
        """Return what to measure, the victim alone first."""
        known = tuple(rivals.THREADS) if self.choose_threads else (*rivals.WAYS, *rivals.THREADS)
        chosen = tuple(part.strip() for part in self.ways.split(","))
        if self.choose_threads and chosen == rivals.WAYS:
            chosen = known
        for way in chosen:
            if way not in known:
                raise InputError(f"--ways: expected some of {', '.join(known)}, got {way!r}")
        if rivals.ART in chosen and find_spec("art") is None:
            raise InputError(
                f"--ways {rivals.ART}: needs art, which is not installed: "
                "python -m pip install -e '.[bench]' in the clone, or leave it out"
            )
        if self.choose_threads:
            others = threads.candidates(model_config.read(self._victim_config()))
            chosen = tuple(way for way in chosen if way in others)
        return rivals.VICTIM, *(way for way in chosen if way != rivals.VICTIM)

    def _victim_config(self) -> Path:
        return rivals.victim_config(self.repository, self.model)


def _table(report: dict[str, Any]) -> Table:
    table = Table(title=f"{report['model']}: what each way costs")
    for heading in ("rows x\nclients", "way", "p50, ms", "ratio", "p99, ms", "rows/s", "ratio",
                    "CPU s/\n1000"):  # fmt: skip
        # A long name is broken over lines, a number is not.
        way = heading == "way"
        table.add_column(heading, justify="left" if way else "right", no_wrap=not way)
    for cell in report["cells"]:
        where = f"{cell['batch']} x {cell['concurrency']}"
        for way, found in cell["ways"].items():
            table.add_row(
                where,
                way if not found["errors"] else f"{way}, {found['errors']} errors",
                digits(found["latency_p50_ms"]),
                _interval(found["ratio"]["latency_p50_ms"]),
                digits(found["latency_p99_ms"]),
                digits(found["rows_per_second"]),
                _interval(found["ratio"]["rows_per_second"]),
                digits(found["cpu_seconds_per_1000_rows"]),
            )
            where = ""
        table.add_section()
    return table


def _interval(ratio: dict[str, float | None]) -> str:
    value, low, high = (ratio[key] for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "-"
    return f"{value:.2f} {low:.2f}-{high:.2f}"
