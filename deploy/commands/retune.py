"""The command ``reverse-sigmoid retune``: other parameters for a protected model, in place."""

import json
from pathlib import Path
from typing import Annotated

import typer

from deploy.commands.options import err_console, say
from postprocess.errors import InputError

NONE = "none"


def retune(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model's folder: MODEL_REPOSITORY/NAME.")
    ],
    *,
    beta: Annotated[str, typer.Option(help="Magnitude, 0.001 to 100.  [default: as it is]")] = "",
    gamma: Annotated[str, typer.Option(help="Slope, 0.001 to 100.  [default: as it is]")] = "",
    margin: Annotated[
        str, typer.Option(help="Share of the top-1 gap kept, 0 to 0.9.  [default: as it is]")
    ] = "",
    decimals: Annotated[
        str, typer.Option(help="Of the answers, 1 to 6, or none.  [default: as it is]")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it, write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what changed as JSON.")] = False,
) -> None:
    """Change the parameters of a protected model's defence, in place, of either layout.

    Files are replaced whole: a Triton that polls takes them over without a failed request.
    """
    from deploy.repository.question_refresh import refresh
    from deploy.repository.retuning import plan

    given = {"beta": beta, "gamma": gamma, "margin": margin, "decimals": decimals}
    changes = {key: None if value == NONE else value for key, value in given.items() if value}
    if not changes:
        raise InputError(f"expected at least one of {', '.join(f'--{key}' for key in given)}")
    planned = plan(model, changes)
    if not dry_run:
        for one in planned:
            one.write()
        for warning in refresh(model):
            say(f"warning: {warning}", console=err_console)
    if as_json:
        said = [
            {"file": str(one.file), "written": not dry_run, "changes": one.changes()}
            for one in planned
        ]
        print(json.dumps(said))
        return
    for one in planned:
        print(one.diff, end="")
        say(str(one))
    if dry_run:
        say("nothing was written", console=err_console)
