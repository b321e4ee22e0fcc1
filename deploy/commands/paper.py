"""``reverse-sigmoid paper``: the paper's tables and figures, from runs of your own."""

import json
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from deploy.commands import asking, options
from deploy.commands.console import err_console, out_console, say
from deploy.commands.needs import refuse_missing, refuse_missing_backend
from deploy.commands.progress import Countdown
from deploy.commands.scheduler import Jobs, SchedulerAddress, connected
from exporters.training import datasets
from load_tests.paper.plan import PARTS, PaperPlan
from load_tests.paper.scales import SCALES
from load_tests.runs.run import Run
from postprocess.errors import InputError

if TYPE_CHECKING:
    from load_tests.runs.cluster import Cluster


@dataclass(frozen=True, kw_only=True)
class PaperCommand:
    """Make the runs that are missing in --out, and write RESULTS.md of all that are there.

    smoke takes a minute, text half an hour on two idle cores, cpu hours for each data set (the
    first is the most telling), full is meant for an accelerator (KERAS_BACKEND=jax). A later call
    fills the gaps, also after one that --minutes or Ctrl-C ended; a run's file is made again, with
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
    data: Annotated[str, typer.Option(help="Runs on this data set alone, such as cifar10.")] = ""
    out: Annotated[Path, typer.Option(help="Folder of runs, figures and RESULTS.md.")]
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Stop after so many; the same command resumes later."),
    ] = None
    jobs: Jobs = None
    scheduler: SchedulerAddress = ""
    as_json: options.AsJson = False

    def run(self) -> None:
        refuse_missing("sklearn", "scipy", "matplotlib")
        refuse_missing_backend()
        datasets.refuse_missing(self.data_dir)
        what = self.what
        if what.endswith(".json"):
            if self.scheduler:
                raise InputError(
                    "--scheduler: a run's file is made again on this machine; leave it out"
                )
            _again(Path(what), self.out, self.data_dir, as_json=self.as_json)
            return
        if what != "all" and what not in PARTS:
            raise InputError(
                f"paper: expected {', '.join(PARTS)}, all or a .json file, got {what!r}"
            )
        with connected(self.scheduler) as cluster:
            self._make(cluster)

    def _make(self, cluster: "Cluster | None") -> None:
        """Make what is missing, and report on all that is there."""
        from load_tests.runs.processes import MOST_PLACES
        from load_tests.runs.runner import Runner

        start, scale, what = time.monotonic(), SCALES[self.scale], self.what
        runner = Runner(
            self.out / self.scale,
            data_dir=self.data_dir,
            jobs=self.jobs or (MOST_PLACES if cluster else scale.jobs),
            tell=Countdown().tell,
            cluster=cluster,
        )
        plan = PaperPlan(scale, runner.known)
        known = dict.fromkeys(run.victim.data for run in plan.needed(what))
        if self.data and self.data not in known:
            raise InputError(
                f"--data: expected one that {what} of scale {self.scale} has runs on, "
                f"{', '.join(known)}, got {self.data!r}"
            )

        def needed() -> list[Run]:
            return [run for run in plan.needed(what) if self.data in ("", run.victim.data)]

        try:
            with runner:
                say(f"{len(runner.missing(needed()))} runs to make at least", console=err_console)
                minutes = math.inf if self.minutes is None else self.minutes
                runner.make_missing(needed, until=start + minutes * 60)
        except BaseException:
            with suppress(OSError):  # what ended the runs is to be told
                _report(self.out)
            raise
        report = _report(self.out)
        made, missing = runner.made, len(runner.missing(needed()))
        if self.as_json:
            said = {"made": made, "missing": missing, "failed": runner.failed}
            print(json.dumps({**said, "report": str(report)}))
        else:
            over = f" {missing} are missing at least: call again." if missing else ""
            say(f"{made} runs made.{over} The results are in {report}.")
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
    from load_tests.runs.made import read

    before = read(path)
    after = again.make(before, out / "again", data_dir=data_dir, tell=Countdown().tell)
    otherwise = again.differences(before, after)
    if as_json:
        found = {"run": after.run.to_json(), "before": before.result, "result": after.result}
        digests = [before.victim_digest, after.victim_digest]
        print(json.dumps({**found, "made_otherwise": otherwise, "victim_digests": digests}))
        return
    table = Table("measure", "in the file", "now", "difference", title=after.run.name)
    for who in ("victim", "protected", "recovered", "stolen"):
        for key, old in before.result.get(who, {}).items():
            new = after.result[who][key]
            table.add_row(f"{who} {key}", f"{old:.4f}", f"{new:.4f}", f"{new - old:+.4f}")
    out_console.print(table)
    for line in otherwise:
        say(f"made otherwise: {line}")
    if before.victim_digest not in (None, after.victim_digest):
        say(f"its victim is another: digest {before.victim_digest}, now {after.victim_digest}")
    if before.result == after.result:
        say("Equal to the last digit.")
