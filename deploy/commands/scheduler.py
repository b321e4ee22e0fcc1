"""Options of where runs are made: how many at a time, or by the workers of Dask elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.commands.console import err_console, say
from deploy.commands.needs import refuse_missing

if TYPE_CHECKING:
    from load_tests.runs.cluster import Cluster

SchedulerAddress = Annotated[
    str,
    typer.Option(
        "--scheduler",
        metavar="tcp://HOST:PORT",
        help="A Dask scheduler, whose workers make the runs; tls:// on a shared network.",
        show_default="processes of this machine",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Runs at a time.",
        show_default="1, in paper what the scale is made for; with --scheduler one for each worker",
    ),
]


@contextmanager
def connected(where: str) -> "Iterator[Cluster | None]":
    """Yield a connection to the scheduler, see ``load_tests.runs.cluster.connected``."""
    if where:
        refuse_missing("distributed")
    from load_tests.runs import cluster

    with cluster.connected(where, partial(say, console=err_console)) as found:
        yield found
