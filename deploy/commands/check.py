"""``reverse-sigmoid check``: what is wrong with a model repository, before it is served."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.commands import options
from deploy.commands.console import counted, say
from postprocess.errors import InputError

if TYPE_CHECKING:
    from deploy.repository.finding import Finding


@dataclass(frozen=True, kw_only=True)
class CheckCommand:
    """Look for what would stop a repository from loading, leak scores, or defend badly.

    Exits with 1 if there is an error; warnings do not change the exit code.
    """

    repository: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL_REPOSITORY", help="A repository, or one model of it, REPOSITORY/NAME."
        ),
    ]
    gateway: Annotated[
        Path | None,
        typer.Option(
            metavar="operator.yaml",
            help="Also check this file against the repository: which client may ask what.",
        ),
    ] = None
    as_json: options.AsJson = False

    def run(self) -> None:
        from deploy.repository.check import check

        checked = check(self.repository)
        if self.gateway is not None:
            alone = (self.repository / "config.pbtxt").exists()
            repository = self.repository.absolute().parent if alone else self.repository
            checked.findings.extend(_of_gateway(self.gateway, repository))
        if self.as_json:
            print(json.dumps(checked.as_json(), indent=2))
        else:
            for finding in checked.findings:
                say(f"{finding.level:7} {finding.code}: {finding.message}")
            errors = len(checked.errors)
            counts = {"model": checked.models, "error": errors}
            counts["warning"] = len(checked.findings) - errors
            told = ", ".join(counted(number, what) for what, number in counts.items())
            say(f"{self.repository}: {told}")
        if checked.errors:
            raise typer.Exit(1)


def _of_gateway(path: Path, repository: Path) -> "Iterator[Finding]":
    """Yield what an operator's file opens that it should not, and who gets raw scores."""
    from deploy.gateway import early, models, operator_file
    from deploy.repository import model_config
    from deploy.repository.finding import error, warning

    try:
        configs = model_config.read_all(repository)
        operator = models.against(path, operator_file.read(path), configs)
        early.refuse_no_pair(path, operator)
    except InputError as refusal:
        yield error("gateway", "", str(refusal))
    else:
        for line in models.raw_access(operator):
            yield warning("raw-access", "", f"{path}: {line}")
