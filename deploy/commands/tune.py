"""``reverse-sigmoid tune``: a setting of the defence for a classifier of yours."""

import json
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from rich.table import Table

from deploy.commands import asking, options
from deploy.commands.console import command_line, err_console, say, show
from deploy.commands.many import try_each
from deploy.commands.needs import refuse_missing, refuse_missing_backend
from deploy.commands.progress import Countdown
from deploy.commands.retune import NONE, show_changes, write
from deploy.commands.scheduler import Jobs, SchedulerAddress, connected
from exporters.files.atomic_file import write_json, write_text
from exporters.training import architectures
from load_tests.frontier.study import STEPS
from postprocess.errors import InputError

if TYPE_CHECKING:
    from deploy.repository.retuning import Retuning
    from load_tests.tune.tuning import Wanted
    from postprocess.parameters import Parameters

#: A model, and one of its outputs, "" for the only one.
_Head: TypeAlias = tuple[str, str]
SETTING, PLOT = ("beta", "gamma", "margin", "decimals"), "frontier.svg"
#: The folder of what other kinds of answers would leave and give.
ANSWERS = "answers"


@dataclass(frozen=True, kw_only=True)
class TuneCommand:
    """Find beta and gamma for protected models, offline: no server is asked or restarted.

    Every finished training is kept in --out: the same command resumes where it stopped.
    """

    repository: Annotated[Path, typer.Option(help="The model repository.")]
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="The protected model; several, or heads, get a folder each in --out.",
            show_default="all of the repository",
        ),
    ] = None
    output: Annotated[
        str, typer.Option(help="Which of several outputs.", show_default="all, one by one")
    ] = ""
    data: asking.DataKind = ""
    data_dir: asking.DataDir = None
    query_set: asking.OwnRows = ""
    test_set: asking.OwnTestRows = ""
    criterion: Annotated[
        str,
        typer.Option(
            help="paper: highest cosine of the settings that cost the thief 20 points of accuracy; "
            "frontier: by your own limits."
        ),
    ] = "paper"
    min_cosine: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="What honest clients must keep, with frontier."),
    ] = None
    max_stolen: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="What the naive thief may agree on at most, with frontier."
        ),
    ] = None
    betas: Annotated[
        str, typer.Option(help="Values of beta to choose among.", show_default="12 from 0.5 to 1.5")
    ] = ""
    gammas: Annotated[
        str,
        typer.Option(help="Values of gamma to choose among.", show_default="5 from 0.05 to 0.7"),
    ] = ""
    margins: Annotated[
        str, typer.Option(help="Margins to choose among.", show_default="as it is")
    ] = ""
    decimals: Annotated[
        str,
        typer.Option(help="Decimals to choose among, such as none,2,3.", show_default="as it is"),
    ] = ""
    answers: Annotated[
        bool,
        typer.Option(
            "--answers",
            help="Compare it with calibrated, rounded and other answers, by 36 more trainings.",
        ),
    ] = False
    answers_steps: Annotated[
        int, typer.Option(min=1, help="Training batches of 64 rows of the thieves of --answers.")
    ] = STEPS
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Train a thief on every setting.")
    ] = False
    queries: Annotated[
        int,
        typer.Option(min=1, help="Queries of the thief; at most a third of the training set."),
    ] = 4800
    steps: Annotated[int, typer.Option(min=1, help="Training batches of 64 rows.")] = 300
    architecture: asking.SubstituteNetwork = ""
    seed: options.Seed = 0
    split_seed: asking.SplitSeed = 0
    jobs: Jobs = None
    scheduler: SchedulerAddress = ""
    out: Annotated[Path, typer.Option(help="Folder of the trainings and the frontier.")]
    write: Annotated[
        bool, typer.Option("--write", help="Put the recommended setting into the model.")
    ] = False
    as_json: options.AsJson = False

    def run(self) -> None:
        wanted = self._wanted()
        refuse_missing_backend()
        refuse_missing("scipy", "matplotlib")
        heads = self._heads()
        if len(heads) == 1:
            ((_, head),) = heads.items()
            found, planned = self._tune(head, self.out, wanted)
            if self.as_json:
                print(json.dumps(found))
                return
            _show(found, self.out / PLOT)
            self._show_changes(planned)
            return
        done, failed = try_each(
            heads, lambda name: self._tune(heads[name], self.out / name, wanted)
        )
        if self.as_json:
            said = [found for found, _ in done.values()]
            said += [{"model": name, "error": why} for name, why in failed.items()]
            print(json.dumps(said))
        else:
            _show_many({name: found for name, (found, _) in done.items()}, list(failed))
            self._show_changes([one for _, planned in done.values() for one in planned])
        if failed:
            raise typer.Exit(1)

    def _heads(self) -> dict[str, _Head]:
        """Return what is to be tuned, by its folder in --out: a model, or one of its outputs."""
        from deploy.existing import listing
        from deploy.repository import retuning

        models = list(dict.fromkeys(self.models or ()))
        if not models:
            models = [one.name for one in listing.look(self.repository).protected]
        if not models:
            raise InputError(f"{self.repository}: no protected model there")
        heads = {}
        for model in models:
            outputs = [self.output]
            if not self.output:
                with suppress(InputError):  # says the search too, of this model alone
                    outputs = retuning.outputs_of(self.repository / model)
            for output in outputs:
                folder = f"{model}/{output.replace('/', '_')}" if len(outputs) > 1 else model
                heads[folder] = (model, output)
        return heads

    def _tune(
        self, head: _Head, out: Path, wanted: "Wanted"
    ) -> tuple[dict[str, Any], "list[Retuning]"]:
        """Return what was found for a head, and what it makes of the model's files."""
        from deploy.repository import retuning
        from load_tests.tune import report

        model, output = head
        found, chosen = self._search(head, out, wanted)
        write_json(out / "tune.json", found, indent=1)
        write_text(out / PLOT, report.plot(found))
        folder = self.repository / model
        planned = retuning.plan(
            folder, {key: _text(value) for key, value in chosen.items()}, output
        )
        if self.write:
            write(folder, planned)
        return found, planned

    def _show_changes(self, planned: "list[Retuning]") -> None:
        show_changes(planned)
        if not self.write and any(one.changes() for one in planned):
            say("Nothing was written; --write does.")

    def _wanted(self) -> "Wanted":
        from load_tests.tune.tuning import CRITERIA, Wanted

        if self.criterion not in CRITERIA:
            raise InputError(
                f"--criterion: expected {' or '.join(CRITERIA)}, got {self.criterion!r}"
            )
        limits = (self.min_cosine, self.max_stolen)
        if self.criterion == "paper" and limits != (None, None):
            raise InputError("--min-cosine and --max-stolen: go with --criterion frontier")
        return options.settings(Wanted, self)

    def _search(
        self, head: _Head, out: Path, wanted: "Wanted"
    ) -> tuple[dict[str, Any], dict[str, float | None]]:
        """Return what was found, and the setting that is recommended."""
        from deploy.repository import victim_graph
        from load_tests.frontier import page
        from load_tests.runs.run import Run, Victim
        from load_tests.runs.runner import Runner
        from load_tests.tune import answers_tried, candidates, recorded, report
        from load_tests.tune.tuning import Tuning

        classifier, now = victim_graph.find(self.repository, *head)
        _refuse_other(self.repository / head[0], now)
        drawn = asking.drawn(self)
        if drawn.labels is None and self.answers:
            raise InputError("--answers: the rows to judge by need an array labels")
        if drawn.labels is None and wanted.criterion == "paper":
            raise InputError(
                "--criterion paper: is about accuracy, so the rows to judge by need an array "
                "labels; --criterion frontier does without"
            )
        architecture = self.architecture or architectures.default(drawn.shape)
        architectures.find(architecture, drawn.shape)
        data = self.data or self.query_set
        victim = Victim(data=data, architecture=architecture, steps=0, seed=self.split_seed)
        with err_console.status(f"asking {classifier.path}"):
            logits = recorded.record(classifier, drawn, out / "victims", victim)
        tried = candidates.make(
            logits,
            now,
            betas=_numbers(self.betas, "--betas") or candidates.BETAS,
            gammas=_numbers(self.gammas, "--gammas") or candidates.GAMMAS,
            margins=_numbers(self.margins, "--margins") or (now.margin,),
            decimals=_decimals(self.decimals) if self.decimals else (now.decimals,),
        )
        say(f"{len(tried)} settings to choose among", console=err_console)
        own = {name: getattr(self, name) for name in ("queries", "steps", "seed")}
        thief = Run(victim=victim, substitute=architecture, **own)
        progress, where = Countdown(), self.data_dir
        with ExitStack() as stack:
            cluster = stack.enter_context(connected(self.scheduler))
            jobs = self.jobs or (cluster.jobs if cluster else 1)
            runner = Runner(out, data_dir=where, jobs=jobs, tell=progress.tell, cluster=cluster)
            stack.enter_context(runner)
            tuning = Tuning(tried, thief, _kept(now), runner, jobs=jobs, expect=progress.expect)
            chosen = tuning.run(wanted)
            if self.answers:
                classes, pool = logits.shape[1], len(drawn.pool)
                defence = tuning.run_of(chosen).defence
                longer = thief.but(steps=self.answers_steps)
                asked = answers_tried.study(longer, defence, classes=classes, pool=pool)
                answers_tried.make(asked, runner, expect=progress.expect)
                page.write(out / ANSWERS, [asked], runner.known, command=command_line())
        said: dict[str, Any] = {"model": head[0], "data": data, "wanted": asdict(wanted)}
        said["meets_criterion"] = tuning.meets(wanted, chosen)
        return said | report.as_dict(tuning, chosen, candidates=len(tried)), chosen.setting


def _refuse_other(folder: Path, now: "Parameters") -> None:
    """Refuse a model whose defence has nothing that tune could set."""
    if now.multi_label or now.defense != "reverse_sigmoid":
        undo = f"; calibrate {folder} --undo goes back" if now.defense == "calibrated" else ""
        raise InputError(
            f"{folder}: tune expects defense reverse_sigmoid and one choice among K classes, "
            f"got defense {now.defense}{', multi_label true' * now.multi_label}{undo}"
        )


def _show_many(found: dict[str, dict[str, Any]], failed: list[str]) -> None:
    """Print what is recommended for each of several models."""
    table = Table("model", *SETTING, "cosine", "stolen", "labels only", "")
    for name, report in found.items():
        chosen = report["recommended"]
        (shown,) = [
            one for one in report["settings"] if {key: one[key] for key in chosen} == chosen
        ]
        table.add_row(
            name,
            *(_text(chosen[key]) or "" for key in SETTING),
            f"{shown['cosine']:.3f}",
            f"{shown['stolen']['agreement']:.3f}",
            f"{report['labels_only']:.3f}",
            "" if report["meets_criterion"] else "stops less than was asked for",
        )
    for name in failed:
        table.add_row(name, *[""] * (len(SETTING) + 3), "not tuned")
    show(table, width=options.WIDTH)


def _show(found: dict[str, Any], plot: Path) -> None:
    from load_tests.tune.report import HEAD, table_rows

    table = Table(*HEAD, title=f"{found['model']}: what users keep, and what thieves get")
    for row in table_rows(found):
        table.add_row(*row)
    show(table, width=options.WIDTH)
    say(
        f"stolen: agreement of a substitute that learns the answers; one that keeps only the "
        f"labels gets {found['labels_only']:.3f} whatever the setting."
    )
    say(
        "The recommended setting was chosen by the table. With another seed the thief gets "
        f"{found['again']['agreement']:.3f} from it."
    )
    if not found["meets_criterion"]:
        say(
            "WARNING: no setting tried stops as much as was asked for; the one named comes nearest."
        )
    trainings = found["trainings"]
    say(
        f"{trainings['search']} trainings for {found['candidates']} settings, "
        f"{trainings['labels']} of the thief of labels, {trainings['stronger']} of stronger ones, "
        f"{trainings['again']} with another seed. The plot is {plot}."
    )


def _kept(now: Any) -> dict[str, Any]:
    """Return the parameters of the defence that are no part of a setting."""
    given = {key: value for key, value in asdict(now).items() if value is not None}
    for key in ("scores", "multi_label", "beta", "gamma", "margin", "decimals"):
        given.pop(key, None)
    return given


def _numbers(text: str, option: str) -> list[float]:
    return options.numbers(text, option=option, least=0) if text else []


def _decimals(text: str) -> list[int | None]:
    try:
        return [None if part == NONE else int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"--decimals: expected none or whole numbers from 1 to 6, separated by commas, got "
            f"{text!r}"
        ) from None


def _text(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"
