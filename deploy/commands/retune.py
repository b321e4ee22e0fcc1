"""``reverse-sigmoid retune``: other parameters for a protected model, in place."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.commands import options
from deploy.commands.console import err_console, say
from deploy.commands.many import expanded, try_each
from postprocess.errors import InputError

if TYPE_CHECKING:
    from deploy.repository.retuning import Retuning

NONE = "none"


@dataclass(frozen=True, kw_only=True)
class RetuneCommand:
    """Change the parameters of protected models' defences, in place, of either layout.

    Files are replaced whole: a Triton that polls takes them over without a failed request.
    """

    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="Models' folders, MODEL_REPOSITORY/NAME, or a repository: all of it.",
        ),
    ]
    output: Annotated[
        str,
        typer.Option(help="The output whose defence is changed.", show_default="all of them"),
    ] = ""
    beta: Annotated[str, typer.Option(help="Magnitude, 0.001 to 100.", show_default="as it is")] = (
        ""
    )
    gamma: Annotated[str, typer.Option(help="Slope, 0.001 to 100.", show_default="as it is")] = ""
    margin: Annotated[
        str, typer.Option(help="Share of the top-1 gap kept, 0 to 0.9.", show_default="as it is")
    ] = ""
    decimals: Annotated[
        str, typer.Option(help="Decimals of the answers, 1 to 6, or none.", show_default="as it is")
    ] = ""
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it, write nothing.")] = False
    as_json: options.AsJson = False

    def run(self) -> None:
        keys = ("beta", "gamma", "margin", "decimals")
        given = {key: getattr(self, key) for key in keys}
        changes = {key: None if value == NONE else value for key, value in given.items() if value}
        if not changes:
            raise InputError(f"expected at least one of {', '.join(f'--{key}' for key in keys)}")
        paths = expanded(self.models, lambda found: found.protected, "no protected model there")
        failed: dict[Path, str] = {}
        if len(paths) == 1:
            planned = self._retune(paths[0], changes)
        else:
            done, failed = try_each(paths, lambda path: self._retune(path, changes))
            planned = [one for each in done.values() for one in each]
        if self.as_json:
            said: list[dict[str, Any]] = [
                {"file": str(one.file), "written": not self.dry_run, "changes": one.changes()}
                for one in planned
            ]
            said += [{"model": str(path), "error": why} for path, why in failed.items()]
            print(json.dumps(said))
        else:
            show_changes(planned)
            if self.dry_run:
                say("nothing was written", console=err_console)
        if failed:
            raise typer.Exit(1)

    def _retune(self, model: Path, changes: dict[str, str | None]) -> "list[Retuning]":
        from deploy.repository.retuning import plan

        planned = plan(model, changes, self.output)
        if not self.dry_run:
            write(model, planned)
        return planned


def write(model: Path, planned: Sequence["Retuning"]) -> None:
    """Put new parameters into a model's files, and bring the questions beside it up to date."""
    from deploy.repository.question_refresh import refresh

    for one in planned:
        one.write()
    for warning in refresh(model):
        say(f"warning: {warning}", console=err_console)


def show_changes(planned: Sequence["Retuning"]) -> None:
    """Print what changes in which file."""
    for one in planned:
        print(one.diff, end="")
        say(str(one))
