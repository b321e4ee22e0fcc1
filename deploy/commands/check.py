"""``reverse-sigmoid check``: what is wrong with a model repository, before it is served."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from deploy.commands import options
from deploy.commands.console import say


@dataclass(frozen=True, kw_only=True)
class CheckCommand:
    """Look for what would stop a model repository from loading, leak, or defend badly.

    Exits with 1 if there is an error; warnings do not change the exit code.
    """

    repository: Annotated[Path, typer.Argument(metavar="MODEL_REPOSITORY")]
    as_json: options.AsJson = False

    def run(self) -> None:
        from deploy.repository.check import check

        checked = check(self.repository)
        if self.as_json:
            print(json.dumps(checked.as_json(), indent=2))
        else:
            for finding in checked.findings:
                say(f"{finding.level:7} {finding.code}: {finding.message}")
            errors = len(checked.errors)
            say(
                f"{self.repository}: {checked.models} models, {errors} errors, "
                f"{len(checked.findings) - errors} warnings"
            )
        if checked.errors:
            raise typer.Exit(1)
