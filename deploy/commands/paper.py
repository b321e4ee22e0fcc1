"""``reverse-sigmoid paper``: the paper's tables and figures, from runs of your own."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from deploy.commands import asking, options
from deploy.commands.console import err_console, out_console, say
from deploy.commands.needs import refuse_missing, refuse_missing_backend
from deploy.commands.progress import Countdown
from exporters.training import datasets
from load_tests.paper.plan import PARTS, PaperPlan
from load_tests.paper.scales import SCALES
from postprocess.errors import InputError


@dataclass(frozen=True, kw_only=True)
class PaperCommand:
    """Make the runs that are missing in --out, and write RESULTS.md of all that are there.

    smoke takes minutes, cpu two to three hours on two cores, full is meant for a GPU
    (KERAS_BACKEND=jax or torch). A later call fills the gaps; a run's file is made again, with
    the threads and the backend that it names, and compared.
    """

    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", help=f"{', '.join(PARTS)}, all of them: all, or a run's .json file."
        ),
    ] = "all"
    data_dir: asking.DataDir = None
    scale: Annotated[str, typer.Option(help=f"{', '.join(SCALES)}.")] = "cpu"
    out: Annotated[Path, typer.Option(help="Folder of runs, figures and RESULTS.md.")]
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at a time.", show_default="what the scale is made for"),
    ] = None
    as_json: options.AsJson = False

    def run(self) -> None:
        from load_tests.runs.runner import Runner

        refuse_missing("sklearn", "scipy", "matplotlib")
        refuse_missing_backend()
        datasets.refuse_missing(self.data_dir)
        what = self.what
        if what.endswith(".json"):
            _again(Path(what), self.out, self.data_dir, as_json=self.as_json)
            return
        if what != "all" and what not in PARTS:
            raise InputError(
                f"paper: expected {', '.join(PARTS)}, all or a .json file, got {what!r}"
            )
        scale, progress = SCALES[self.scale], Countdown()
        runner = Runner(
            self.out / self.scale,
            data_dir=self.data_dir,
            jobs=self.jobs or scale.jobs,
            tell=progress.tell,
        )
        plan = PaperPlan(scale, runner.known)
        made = 0
        try:
            with runner:
                while missing := runner.missing(plan.needed(what)):
                    say(f"{len(missing)} runs to make", console=err_console)
                    progress.expect(len(missing))
                    runner.make(missing)
                    made += sum(run.name not in runner.failed for run in missing)
        finally:
            report = _report(self.out)
        if self.as_json:
            print(json.dumps({"made": made, "failed": runner.failed, "report": str(report)}))
        else:
            say(f"{made} runs made. The results are in {report}.")
        runner.refuse_failed()


def _report(out: Path) -> Path:
    """Write RESULTS.md of all runs that the folder has, of any scale, and return its path."""
    from load_tests.paper import results
    from load_tests.runs.runner import Runner

    kept = {}
    for name in results.scales_in(out):
        runner = Runner(out / name, data_dir=None, jobs=1, tell=lambda *_: None)
        kept[name] = PaperPlan(SCALES[name], runner.known), runner.versions()
    return results.write(out, kept)


def _again(path: Path, out: Path, data_dir: Path | None, *, as_json: bool) -> None:
    """Make one run again and show both results."""
    from load_tests.paper import again
    from load_tests.runs.runner import read

    before = read(path)
    after = again.make(before, out / "again", data_dir=data_dir, tell=Countdown().tell)
    otherwise = again.differences(before, after)
    if as_json:
        found = {"run": after.run.to_json(), "before": before.result, "result": after.result}
        digests = [before.victim_digest, after.victim_digest]
        print(json.dumps({**found, "made_otherwise": otherwise, "victim_digests": digests}))
        return
    table = Table("measure", "in the file", "now", "difference", title=after.run.name)
    for name, old, new in _pairs(before.result, after.result):
        table.add_row(name, f"{old:.4f}", f"{new:.4f}", f"{new - old:+.4f}")
    out_console.print(table)
    for line in otherwise:
        say(f"made otherwise: {line}")
    if before.victim_digest not in (None, after.victim_digest):
        say(f"its victim is another: digest {before.victim_digest}, now {after.victim_digest}")
    if before.result == after.result:
        say("Equal to the last digit.")


def _pairs(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, float, float]]:
    return [
        (f"{who} {key}", value, after[who][key])
        for who in ("victim", "protected", "recovered", "stolen")
        for key, value in before.get(who, {}).items()
    ]
