"""``reverse-sigmoid tune``: a setting of the defence for a classifier of yours."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.commands.options import Seed, err_console, numbers, out_console, say
from exporters import architectures, datasets
from postprocess.errors import InputError

#: Characters that the table takes.
WIDTH = 104
NONE = "none"


def tune(
    *,
    repository: Annotated[Path, typer.Option(help="The model repository.")],
    model: Annotated[str, typer.Option("--model", help="The protected model.")],
    data: Annotated[
        str,
        typer.Option(help=f"The kind of images: {', '.join(datasets.NAMES)}, or an .npz file."),
    ],
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the data sets' files, see export.")
    ] = None,
    criterion: Annotated[
        str,
        typer.Option(
            help="paper: highest cosine of those that cost the thief 20 points of accuracy; "
            "frontier: by your own limits."
        ),
    ] = "paper",
    min_cosine: Annotated[
        float | None, typer.Option(min=0, max=1, help="What honest users must keep; frontier.")
    ] = None,
    max_stolen: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="What the naive thief may agree on, at most; frontier."),
    ] = None,
    betas: Annotated[
        str, typer.Option(help="To choose among.  [default: 12 from 0.5 to 1.5]")
    ] = "",
    gammas: Annotated[
        str, typer.Option(help="To choose among.  [default: 5 from 0.05 to 0.7]")
    ] = "",
    margins: Annotated[str, typer.Option(help="To choose among.  [default: as it is]")] = "",
    decimals: Annotated[
        str, typer.Option(help="To choose among, such as none,2,3.  [default: as it is]")
    ] = "",
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Train a thief on every setting.")
    ] = False,
    queries: Annotated[
        int, typer.Option(min=1, help="Of the thief; at most a third of the training set.")
    ] = 4800,
    steps: Annotated[int, typer.Option(min=1, help="Training batches of 64 images.")] = 300,
    architecture: Annotated[
        str, typer.Option(help=f"The substitute's: {', '.join(architectures.ARCHITECTURES)}.")
    ] = "simple",
    seed: Seed = 0,
    split_seed: Annotated[
        int, typer.Option(min=0, help="The seed that export held the adversary's images off by.")
    ] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at a time.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the trainings and the frontier.")],
    write: Annotated[
        bool, typer.Option("--write", help="Put the recommended setting into the model.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Find beta and gamma for a protected model, offline: no server is asked or restarted.

    Every finished training is kept in --out: the same command goes on where it was stopped.
    """
    from deploy.repository import question_refresh, retuning, victim_graph
    from load_tests.runs.run import Run, Victim
    from load_tests.runs.runner import Runner
    from load_tests.tune import candidates, recorded, report
    from load_tests.tune.tuning import CRITERIA, Tuning, Wanted

    if criterion not in CRITERIA:
        raise InputError(f"--criterion: expected {' or '.join(CRITERIA)}, got {criterion!r}")
    if criterion == "paper" and (min_cosine is not None or max_stolen is not None):
        raise InputError("--min-cosine and --max-stolen: go with --criterion frontier")
    classifier, now = victim_graph.find(repository, model)
    if now.multi_label or now.defense != "reverse_sigmoid":
        raise InputError(f"tune: expected reverse_sigmoid of one choice among K classes, got {now}")
    dataset = datasets.load(data, data_dir)
    victim = Victim(data=data, architecture=architecture, steps=0, seed=split_seed)
    with err_console.status(f"asking {classifier.path}"):
        logits = recorded.record(classifier, dataset, out / "victims", victim)
    tried = candidates.make(
        logits,
        now,
        betas=_numbers(betas, "--betas") or candidates.BETAS,
        gammas=_numbers(gammas, "--gammas") or candidates.GAMMAS,
        margins=_numbers(margins, "--margins") or (now.margin,),
        decimals=_decimals(decimals) if decimals else (now.decimals,),
    )
    progress = _Progress(len(tried))
    thief = Run(victim=victim, substitute=architecture, queries=queries, steps=steps, seed=seed)
    wanted = Wanted(
        criterion=criterion, min_cosine=min_cosine, max_stolen=max_stolen, exhaustive=exhaustive
    )
    with Runner(out, data_dir=data_dir, jobs=jobs, tell=progress.tell) as runner:
        tuning = Tuning(tried, thief, _kept(now), runner, jobs=jobs, expect=progress.expect)
        chosen = tuning.run(wanted)
    found = {
        "model": model,
        "data": data,
        "wanted": asdict(wanted),
        **report.as_dict(tuning, chosen, candidates=len(tried)),
    }
    (out / "tune.json").write_text(json.dumps(found, indent=1) + "\n")
    plot = out / "frontier.svg"
    plot.write_text(report.plot(found))
    changes = {key: _text(value) for key, value in chosen.setting.items()}
    planned = retuning.plan(repository / model, changes)
    if write:
        for one in planned:
            one.write()
        for warning in question_refresh.refresh(repository / model):
            say(f"warning: {warning}", console=err_console)
    if as_json:
        print(json.dumps(found))
        return
    _show(found, plot)
    for one in planned:
        print(one.diff, end="")
        say(str(one))
    if not write and any(one.changes() for one in planned):
        say("Nothing was written; --write does.")


def _show(found: dict[str, Any], plot: Path) -> None:
    from load_tests.tune.report import HEAD, table_rows

    table = Table(*HEAD, title=f"{found['model']}: what users keep, and what thieves get")
    for row in table_rows(found):
        table.add_row(*row)
    Console(width=max(out_console.width, WIDTH)).print(table)
    say(
        f"stolen: agreement of a substitute that learns the answers; one that keeps only the "
        f"labels gets {found['labels_only']:.3f} whatever the setting."
    )
    say(
        f"{found['trainings']['search']} trainings for {found['candidates']} settings, "
        f"{found['trainings']['shown']} of stronger thieves. The plot is {plot}."
    )


def _kept(now: Any) -> dict[str, Any]:
    """Return the parameters of the defence that are no part of a setting."""
    given = {key: value for key, value in asdict(now).items() if value is not None}
    for key in ("scores", "multi_label", "beta", "gamma", "margin", "decimals"):
        given.pop(key, None)
    return given


def _numbers(text: str, option: str) -> list[float]:
    return numbers(text, option=option, least=0) if text else []


def _decimals(text: str) -> list[int | None]:
    try:
        return [None if part == NONE else int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"--decimals: expected none and integers from 1 to 6 with commas, got {text!r}"
        ) from None


def _text(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


class _Progress:
    """A line for each training, with the time left."""

    def __init__(self, candidates: int) -> None:
        self._seconds: list[float] = []
        self._left = 0
        say(f"{candidates} settings to choose among", console=err_console)

    def expect(self, left: int) -> None:
        """Be told about how many trainings there still are."""
        self._left = left

    def tell(self, name: str, done: int, total: int, seconds: float, error: str) -> None:
        """Report a training that is done, or why it failed."""
        self._seconds.append(seconds)
        left = max(0, self._left - done)
        minutes = left * sum(self._seconds) / len(self._seconds) / 60
        failed = f"FAILED: {error}; " if error else ""
        say(
            f"{name}: {failed}{seconds:.1f} s, about {left} trainings and {minutes:.0f} min left",
            console=err_console,
        )
