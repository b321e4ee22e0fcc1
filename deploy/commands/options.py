"""Options that several commands have, and how their words are read."""

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from exporters.repository.model_repository import SHIPPED
from postprocess.errors import InputError
from postprocess.parameters import Parameters

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Settings = TypeVar("Settings", bound=DataclassInstance)

# Numbers of the defence come as text, so that the command line and config.pbtxt share one
# parser and one message.
Beta = Annotated[str, typer.Option(help="Magnitude of the perturbation, 0.001 to 100.")]
Gamma = Annotated[str, typer.Option(help="Slope of the sigmoid, 0.001 to 100.")]
Margin = Annotated[str, typer.Option(help="Share of the top-1 gap that is kept, 0 to 0.9.")]
Steps = Annotated[int, typer.Option(min=1, help="Training batches of 64 rows.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 2, help="Seed of every random choice.")]
MaxClientBatch = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most rows in a client's request; 1 makes query budgets at a gateway exact.",
        show_default="as many as the victim takes",
    ),
]
PublicModel = Annotated[str, typer.Option("--model", help="The protected model.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]

#: Characters that a wide table takes.
WIDTH = 104

STEPS = 600
BETA, GAMMA, MARGIN = f"{SHIPPED.beta:g}", f"{SHIPPED.gamma:g}", f"{SHIPPED.margin:g}"


def settings(kind: "type[Settings]", command: object, **others: Any) -> "Settings":
    """Return a dataclass of which each field is among ``others`` or an option of the command."""
    names = {field.name for field in fields(kind)} - others.keys()
    return kind(**others, **{name: getattr(command, name) for name in names})


def parameters(beta: str, gamma: str, margin: str) -> Parameters:
    """Return the defence that three options of the command line say.

    Raises:
        InputError: one of them is no number, or out of range.
    """
    strings = {"beta": beta, "gamma": gamma, "margin": margin, "scores": SHIPPED.scores}
    return Parameters.from_strings(strings, where="command line")


def numbers(text: str, *, option: str, least: float, count: int | None = None) -> list[float]:
    """Return the numbers of a list such as ``1,10``.

    Raises:
        InputError: it is no such list, a number is below ``least``, or there are not ``count``.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    wanted = f"{count} numbers" if count else "numbers"
    if not found or not all(least <= number < float("inf") for number in found):
        raise InputError(
            f"{option}: expected {wanted} of at least {least:g}, separated by commas, got {text!r}"
        )
    if count is not None and len(found) != count:
        raise InputError(f"{option}: expected {wanted}, separated by commas, got {text!r}")
    return found


def counts(text: str, option: str, most: int) -> tuple[int, ...]:
    """Return the whole numbers of a comma-separated list, each once, in its order.

    Raises:
        InputError: it is no such list, or a number is above ``most``.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts) or not all(
        1 <= int(part) <= most for part in parts
    ):
        raise InputError(
            f"{option}: expected whole numbers from 1 to {most}, separated by commas, got {text!r}"
        )
    return tuple(dict.fromkeys(int(part) for part in parts))
