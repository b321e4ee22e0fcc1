"""What several commands share: options, parsing, and how they talk."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from exporters import datasets
from exporters.model_repository import SHIPPED
from load_tests.endpoint import API_KEY_HEADER, API_KEY_VARIABLE
from postprocess.errors import InputError
from postprocess.parameters import Parameters

out_console = Console()
err_console = Console(stderr=True)

# Numbers of the defence come as text, so that the command line and config.pbtxt share one
# parser and one message.
Beta = Annotated[str, typer.Option(help="Magnitude of the perturbation, 0.001 to 100.")]
Gamma = Annotated[str, typer.Option(help="Slope of the sigmoid, 0.001 to 100.")]
Margin = Annotated[str, typer.Option(help="Share of the top-1 gap that is kept, 0 to 0.9.")]
Steps = Annotated[int, typer.Option(min=1, help="Training batches of 64 images.")]
ApiKey = Annotated[
    str | None,
    typer.Option(envvar=API_KEY_VARIABLE, help=f"Sent as {API_KEY_HEADER}; better not typed."),
]
TlsCa = Annotated[Path | None, typer.Option(help="File of certificates to trust; turns TLS on.")]
MaxClientBatch = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most rows of a client's request; 1 makes query budgets at a gateway exact.",
        show_default="as many as the victim takes",
    ),
]
Sent = Annotated[
    str,
    typer.Option(
        metavar="DATASET",
        help=f"What to send: one of {', '.join(datasets.NAMES)}.  [default: random input]",
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 2, help="Of every random choice.")]

STEPS = 600
#: Most rows of a measured request, and most clients at once.
MOST_ROWS, MOST_CLIENTS = 65536, 1024
BETA, GAMMA, MARGIN = f"{SHIPPED.beta:g}", f"{SHIPPED.gamma:g}", f"{SHIPPED.margin:g}"


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
            f"{option}: expected {wanted} of at least {least:g} with commas, got {text!r}"
        )
    if count is not None and len(found) != count:
        raise InputError(f"{option}: expected {wanted} with commas, got {text!r}")
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


def command_line() -> str:
    """Return the command as it was typed, but for a key that somebody typed into it."""
    shown: list[str] = []
    for argument in sys.argv[1:]:
        if shown and shown[-1] == "--api-key":
            shown.append("...")
        elif argument.startswith("--api-key="):
            shown.append("--api-key=...")
        else:
            shown.append(argument)
    return shlex.join([Path(sys.argv[0]).name, *shown])


def say(text: str, *, console: Console = out_console) -> None:
    """Print a line as it is, however long."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
