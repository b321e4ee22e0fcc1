"""Options of the commands that ask a model: about which images, with which key, how many at once.

They stand apart from ``options`` as they need NumPy.
"""

from pathlib import Path
from typing import Annotated

import typer

from deploy.commands.options import counts
from exporters import architectures, datasets
from load_tests.endpoint import API_KEY_HEADER, API_KEY_VARIABLE

_SETS = ", ".join(datasets.NAMES)

DataKind = Annotated[str, typer.Option(help=f"The kind of images: {_SETS}, or an .npz file.")]
SentImages = Annotated[
    str,
    typer.Option(
        metavar="DATASET", help=f"What to send: one of {_SETS}.", show_default="random input"
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the data sets' files: <name>.npz, or STL-10's binary ones."),
]
SplitSeed = Annotated[
    int, typer.Option(min=0, help="The seed that export held the adversary's images off by.")
]
SubstituteNetwork = Annotated[
    str, typer.Option(help=f"The substitute's network: {', '.join(architectures.ARCHITECTURES)}.")
]
ApiKey = Annotated[
    str | None,
    typer.Option(envvar=API_KEY_VARIABLE, help=f"Sent as {API_KEY_HEADER}; better not typed."),
]
TlsCa = Annotated[Path | None, typer.Option(help="File of certificates to trust; turns TLS on.")]
Batches = Annotated[str, typer.Option(help="Rows per request, to be measured in turn.")]
Concurrencies = Annotated[
    str, typer.Option(help="Clients at once, to be measured in turn; each has its own connection.")
]
ReportFile = Annotated[Path | None, typer.Option(help="Also write the JSON report here.")]

BATCHES, CONCURRENCIES = "1,32,256", "1,8,32"
_MOST_ROWS, _MOST_CLIENTS = 65536, 1024


def batches(text: str) -> tuple[int, ...]:
    """Return what ``--batch`` says."""
    return counts(text, "--batch", _MOST_ROWS)


def concurrencies(text: str) -> tuple[int, ...]:
    """Return what ``--concurrency`` says."""
    return counts(text, "--concurrency", _MOST_CLIENTS)
