"""``reverse-sigmoid paper``: the paper's tables and figures, from runs of your own."""

import importlib.util
import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from deploy.commands.options import err_console, out_console, say
from exporters import datasets
from load_tests.paper.plan import PARTS, PaperPlan
from load_tests.paper.scales import SCALES, find
from postprocess.errors import InputError


def paper(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", help=f"{', '.join(PARTS)}, all of them: all, or a run's .json file."
        ),
    ] = "all",
    *,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the data sets' files, see export.")
    ] = None,
    scale: Annotated[str, typer.Option(help=f"{', '.join(SCALES)}.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder of runs, figures and RESULTS.md.")],
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at a time.", show_default="what the scale is made for"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Make the runs that are missing in --out, and write RESULTS.md of all that are there.

    smoke takes minutes, cpu two to three hours on two cores, full is meant for a GPU
    (KERAS_BACKEND=jax or torch). A later call fills the gaps; a run's file is made again, with
    the threads and the backend that it names, and compared.
    """
    _refuse_missing()
    datasets.refuse_missing(data_dir)
    if what.endswith(".json"):
        _again(Path(what), out, data_dir, as_json=as_json)
        return
    if what != "all" and what not in PARTS:
        raise InputError(f"paper: expected {', '.join(PARTS)}, all or a .json file, got {what!r}")
    size = find(scale)
    from load_tests.runs.runner import Runner

    progress = _Progress()
    runner = Runner(out / scale, data_dir=data_dir, jobs=jobs or size.jobs, tell=progress.tell)
    plan = PaperPlan(size, runner.known)
    made = 0
    try:
        with runner:
            while missing := runner.missing(plan.needed(what)):
                progress.phase(len(missing))
                runner.make(missing)
                made += sum(run.name not in runner.failed for run in missing)
    finally:
        report = _report(out)
    if as_json:
        print(json.dumps({"made": made, "failed": runner.failed, "report": str(report)}))
    else:
        say(f"{made} runs made. The results are in {report}.")
    runner.refuse_failed()


def _refuse_missing() -> None:
    """Return if what the runs need is installed: they are made in processes of their own.

    Raises:
        InputError, ModuleNotFoundError: it is not.
    """
    for module in ("keras", "sklearn", "scipy", "matplotlib"):
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(name=module)
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if importlib.util.find_spec(backend) is None:
        raise InputError(
            f"KERAS_BACKEND: expected tensorflow, jax or torch that is installed, got {backend}"
        )


def _report(out: Path) -> Path:
    """Write RESULTS.md of all runs that the folder has, of any scale, and return its path."""
    from load_tests.paper import results
    from load_tests.runs.runner import Runner

    kept = {}
    for name in results.scales_in(out):
        runner = Runner(out / name, data_dir=None, jobs=1, tell=lambda *_: None)
        kept[name] = PaperPlan(find(name), runner.known), runner.versions()
    return results.write(out, kept)


def _again(path: Path, out: Path, data_dir: Path | None, *, as_json: bool) -> None:
    """Make one run again and show both results."""
    from load_tests.paper import again
    from load_tests.runs.runner import read

    before = read(path)
    after = again.make(before, out / "again", data_dir=data_dir, tell=_Progress().tell)
    otherwise = again.differences(before, after)
    if as_json:
        found = {"run": after.run.to_json(), "before": before.result, "result": after.result}
        print(json.dumps({**found, "made_otherwise": otherwise}))
        return
    table = Table("measure", "in the file", "now", "difference", title=after.run.name)
    for name, old, new in _pairs(before.result, after.result):
        table.add_row(name, f"{old:.4f}", f"{new:.4f}", f"{new - old:+.4f}")
    out_console.print(table)
    for line in otherwise:
        say(f"made otherwise: {line}")
    if before.result == after.result:
        say("Equal to the last digit.")


def _pairs(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, float, float]]:
    return [
        (f"{who} {key}", value, after[who][key])
        for who in ("victim", "protected", "recovered", "stolen")
        for key, value in before.get(who, {}).items()
    ]


class _Progress:
    """A line for each run, with the time left."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def phase(self, runs: int) -> None:
        """Begin to count anew: what was known so far told of these runs."""
        self._start = time.monotonic()
        say(f"{runs} runs to make", console=err_console)

    def tell(self, name: str, done: int, total: int, seconds: float, error: str) -> None:
        """Report a run that is done, or why it failed."""
        left = (time.monotonic() - self._start) / done * (total - done)
        failed = f"FAILED: {error}; " if error else ""
        say(
            f"[{done}/{total}] {name}: {failed}{seconds:.1f} s, about {left / 60:.0f} min left",
            console=err_console,
        )
