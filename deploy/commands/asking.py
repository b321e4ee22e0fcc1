"""Options of the commands that ask a model: about which images, with which key, how many at once.

They stand apart from ``options`` as they need NumPy.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.commands.options import counts
from exporters.training import architectures, datasets
from load_tests.asking.endpoint import API_KEY_HEADER, API_KEY_VARIABLE
from load_tests.data.drawn import Drawn, draw_from, refuse_other_rows

_SETS = ", ".join(datasets.NAMES)

DataKind = Annotated[str, typer.Option(help=f"What to ask about: {_SETS}, or an .npz file.")]
SentImages = Annotated[
    str,
    typer.Option(
        metavar="DATASET", help=f"What to send: one of {_SETS}.", show_default="random input"
    ),
]
OwnRows = Annotated[
    str,
    typer.Option(
        metavar="FILE.npz",
        help="Rows of your own in place of --data: an array for each input of the model, by its "
        "name, and optionally features (what a thief learns from) and labels.",
        show_default=False,
    ),
]
OwnTestRows = Annotated[
    str,
    typer.Option(
        metavar="FILE.npz",
        help="More such rows, to judge by.",
        show_default="one row in 5 of the query set",
    ),
]
Output = Annotated[
    str,
    typer.Option(help="The output that holds the scores.", show_default="the only one of floats"),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the data sets' files: <name>.npz, or STL-10's binary ones."),
]
SplitSeed = Annotated[
    int, typer.Option(min=0, help="The seed by which export set the adversary's rows aside.")
]
SubstituteNetwork = Annotated[
    str,
    typer.Option(
        help=f"The substitute's network: {', '.join(architectures.ARCHITECTURES)}.",
        show_default="simple for images, else mlp",
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar=API_KEY_VARIABLE, help=f"Sent as {API_KEY_HEADER}; better not on the command line."
    ),
]
TlsCa = Annotated[Path | None, typer.Option(help="File of certificates to trust; turns TLS on.")]
Batches = Annotated[str, typer.Option(help="Rows per request, to be measured in turn.")]
Concurrencies = Annotated[
    str, typer.Option(help="Clients at once, to be measured in turn; each has its own connection.")
]
ReportFile = Annotated[Path | None, typer.Option(help="Also write the JSON report here.")]

BATCHES, CONCURRENCIES = "1,32,256", "1,8,32"


def cells(command: Any) -> dict[str, tuple[int, ...]]:
    """Return what a command's --batch and --concurrency have measured."""
    return {
        "batches": counts(command.batch, "--batch", 65536),
        "concurrencies": counts(command.concurrency, "--concurrency", 1024),
    }


def drawn(command: Any, *, to_learn: bool = True) -> Drawn:
    """Return the rows that a command's --data or --query-set names.

    Raises:
        InputError: neither or both are given, or they name none.
    """
    refuse_other_rows(command.data, command.query_set, command.test_set)
    where = (command.data_dir, command.split_seed)
    files = command.query_set, command.test_set
    return draw_from(command.data, *where, *files, to_learn=to_learn)
