"""Several models in one call: each is tried, and one that fails loses none of the others."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deploy.commands.console import err_console, say
from exporters.files.atomic_file import told
from postprocess.errors import InputError, ReverseSigmoidError

if TYPE_CHECKING:
    from deploy.existing.listing import Listing

Given = TypeVar("Given")
Got = TypeVar("Got")


@dataclass(frozen=True)
class Told:
    """What a command tells of a model."""

    as_dict: dict[str, Any]
    lines: list[str]
    warnings: list[str]


def expanded(
    given: Iterable[Path], chosen: "Callable[[Listing], list[Path]]", none: str
) -> list[Path]:
    """Return the paths that were given, each once, and of a whole repository what is chosen of it.

    Args:
        given: models, files or repositories.
        chosen: returns the models of a repository that are meant.
        none: what is said of a repository without such.

    Raises:
        InputError: a repository has none.
    """
    from deploy.existing import listing

    found: dict[Path, None] = {}
    for path in given:
        models = [path]
        if listing.is_repository(path):
            models = chosen(listing.look(path))
            if not models:
                raise InputError(f"{path}: {none}")
        found |= dict.fromkeys(models)
    return list(found)


def try_each(
    given: Iterable[Given], work: Callable[[Given], Got]
) -> tuple[dict[Given, Got], dict[Given, str]]:
    """Return what the work made of each, and of those where it failed why, which is said too."""
    done, failed = {}, {}
    for one in given:
        try:
            done[one] = work(one)
        except (ReverseSigmoidError, OSError) as error:
            failed[one] = fail(one, error)
    return done, failed


def fail(one: object, error: Exception) -> str:
    """Say why one of several failed, by its name, and return it."""
    message = told(error) if isinstance(error, OSError) else str(error)
    if str(one) not in message:
        message = f"{one}: {message}"
    say(f"reverse-sigmoid: {message}", console=err_console)
    return message
