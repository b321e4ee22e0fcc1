"""Where the commands talk: to people, and to whoever reads a report later."""

import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

out_console = Console()
err_console = Console(stderr=True)


def say(text: str, *, console: Console = out_console) -> None:
    """Print a line as it is, however long."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def show(table: Table, *, width: int) -> None:
    """Print a table whose names a narrow terminal would cut off: a broken line is better."""
    Console(width=max(out_console.width, width)).print(table)


def counted(number: int, what: str) -> str:
    """Return how many there are of what, ``1 model`` or ``3 models``."""
    return f"{number} {what}{'s' * (number != 1)}"


def command_line() -> str:
    """Return the command as it was typed, except for a key that somebody typed into it."""
    shown: list[str] = []
    for argument in sys.argv[1:]:
        if shown and shown[-1] == "--api-key":
            shown.append("...")
        elif argument.startswith("--api-key="):
            shown.append("--api-key=...")
        else:
            shown.append(argument)
    return shlex.join([Path(sys.argv[0]).name, *shown])
