"""``reverse-sigmoid calibrate``: answers that honest clients can use, for a protected model."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from deploy.commands import asking, options
from deploy.commands.console import err_console, say, show
from deploy.commands.needs import refuse_missing
from deploy.commands.retune import show_changes, write
from exporters.files.atomic_file import write_text
from postprocess import calibration
from postprocess.errors import InputError

if TYPE_CHECKING:
    from load_tests.data.drawn import Drawn
    from load_tests.tune.recorded import OnnxVictim
    from postprocess.calibration import Calibration
    from postprocess.parameters import Parameters


@dataclass(frozen=True, kw_only=True)
class CalibrateCommand:
    """Answer with the label and one of a few calibrated levels of confidence, offline.

    Half of the held-out rows make the table, the other half judge it.
    """

    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model's folder: MODEL_REPOSITORY/NAME.")
    ]
    data: asking.DataKind = ""
    query_set: asking.OwnRows = ""
    test_set: Annotated[
        str,
        typer.Option(
            metavar="FILE.npz",
            help="Other such rows, to calibrate by.",
            show_default="all rows of the query set",
        ),
    ] = ""
    data_dir: asking.DataDir = None
    output: asking.Output = ""
    levels: Annotated[
        int, typer.Option(min=1, max=calibration.MOST_LEVELS, help="Levels of confidence, at most.")
    ] = 10
    seed: options.Seed = 0
    split_seed: asking.SplitSeed = 0
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Write the reliability diagrams here.")
    ] = None
    write: Annotated[bool, typer.Option("--write", help="Put the table into the model.")] = False
    undo: Annotated[
        bool,
        typer.Option("--undo", help="Go back to deceptive answers, as they were."),
    ] = False
    as_json: options.AsJson = False

    def run(self) -> None:
        from deploy.repository import answers, retuning

        if self.undo:
            planned = retuning.plan(self.model, answers.DECEPTIVE, self.output)
            write(self.model, planned)
            show_changes(planned)
            return
        table, report = self.made()
        planned = retuning.plan(self.model, answers.by_table(table), self.output, table)
        if self.plot is not None:
            if not report["answers"]:
                raise InputError("--plot: without labels there is nothing to show; leave it out")
            from load_tests.calibrate import calibration_report

            write_text(self.plot, calibration_report.plot(report))
        if self.write:
            answers.place(planned, table)
            write(self.model, planned)
        if self.as_json:
            print(json.dumps(report | {"model": str(self.model), "written": self.write}))
            return
        show_worth(report)
        show_changes(planned)
        if not self.write:
            say("Nothing was written; --write does.")

    def drawn(self) -> "Drawn":
        """Return the rows; nothing is trained here: all of a query set are held-out ones.

        Raises:
            InputError: see ``asking.drawn``.
        """
        rows = replace(self, test_set=self.test_set or self.query_set)
        return asking.drawn(rows, to_learn=False)

    def made(self) -> "tuple[Calibration, dict[str, Any]]":
        """Return the table, and what it is worth.

        Raises:
            InputError: the model or the rows do not make one.
        """
        refuse_missing("scipy", "matplotlib")
        from deploy.repository import victim_graph
        from load_tests.calibrate import calibration_report
        from load_tests.tune import recorded

        repository, name = self.model.absolute().parent, self.model.name
        classifier, now = victim_graph.find(repository, name, self.output)
        drawn = self.drawn()
        if len(drawn.test) < calibration_report.LEAST_ROWS:
            raise InputError(
                f"calibrate: expected at least {calibration_report.LEAST_ROWS} held-out rows, got "
                f"{len(drawn.test)}"
            )
        with err_console.status(f"asking {classifier.path}"):
            logits = recorded.asker(classifier, drawn, to_learn=False)(drawn.test)
        table, report = calibration_report.make(
            logits,
            drawn.labels,
            levels=self.levels,
            seed=self.seed,
            single=now.multi_label or logits.shape[-1] == 1,
            deceptive=_deceptive(now),
            victim=_digest(classifier),
        )
        for warning in calibration_report.warnings(report):
            say(f"warning: {warning}", console=err_console)
        return table, report


def _deceptive(now: "Parameters") -> "Parameters | None":
    """Return the defence to show beside, of logits, if there is one."""
    if now.beta is None or now.gamma is None:
        return None
    return replace(now, scores="logits", defense="reverse_sigmoid", calibration=None)


def _digest(classifier: "OnnxVictim") -> str:
    """Return by what the classifier is known again; "" of a fused model, whose file changes."""
    from exporters.fusing import fused
    from exporters.graph import external_data

    inside = classifier.output == fused.VICTIM_SCORES
    return "" if inside else external_data.digest(classifier.path)


def show_worth(report: dict[str, Any]) -> None:
    """Print what a table is worth."""
    from load_tests.calibrate.calibration_report import HEAD, judged_by, table_rows

    levels, classes, positions = (report[key] for key in ("levels", "classes", "positions"))
    if report["answers"]:
        shown = Table(*HEAD, title=f"What honest clients get, on {judged_by(report)}")
        for row in table_rows(report):
            shown.add_row(*row)
        show(shown, width=options.WIDTH)
    what = f"{classes} classes: at most {levels * classes} different answers"
    if report["single"]:
        what = f"{classes} yes or no: at most {2 * levels + 1} different answers to each"
    what += f" at each of {positions} positions of a row" * (positions > 1)
    say(
        f"{levels} levels of {what}, {report['bits']:.1f} bits a query, "
        f"{report['label_bits']:.1f} of them the label."
    )
