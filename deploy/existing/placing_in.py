"""Moving models into a repository that a server may be polling, with no request failed.

Seen with Triton 2.51, polling, four clients: steps that stand there before their ensemble, which
then takes the original's place in one exchange, fail no request; an ensemble that a scan sees
before its steps fails all. A model of the Python backend whose model.py goes between Triton's
decision to load it and its stub's first look, some tenths of a second, stops the poller for good:
what has just come, or changed, is not taken away.
"""

import contextlib
import ctypes
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from exporters.files.owned_folders import owned_folder
from exporters.protect import PREFIX
from postprocess.errors import InputError

#: How long a scan of the repository that has begun may take.
SCAN_S = 2.0
#: The most time between two scans, Triton's default being 15 s, and what a load takes.
POLL_S = 20.0
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def beside(repository: Path, way_out: str = "give --repository OUT") -> Iterator[Path]:
    """Yield a folder on the repository's file system, but not in it, gone after the block.

    Raises:
        InputError: there can be none, and what to do.
    """
    parent = repository.resolve().parent  # of models/m/.. the folder of models is another
    writable = os.access(parent, os.W_OK)
    if not writable or os.stat(parent).st_dev != os.stat(repository).st_dev:
        got = "one on another" if writable else "one that cannot be"
        raise InputError(
            f"{parent}: expected a folder on the file system of {repository.name} that can be "
            f"written to, for files are moved in from there, got {got}; {way_out}"
        )
    with owned_folder(parent, PREFIX) as folder:
        yield folder


def exchange(one: Path, other: Path) -> None:
    """Make two folders stand in each other's place in one step.

    Raises:
        OSError: the file system cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if libc.renameat2(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one))


def refuse_without_exchange(folder: Path) -> None:
    """Refuse a file system that cannot exchange two folders, before anything is moved."""
    one, other = folder / ".one", folder / ".other"
    one.mkdir()
    other.mkdir()
    try:
        exchange(one, other)
    except (OSError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{folder.parent}: its file system cannot exchange two folders in one step ({reason}); "
            "give --repository OUT"
        ) from None
    finally:
        shutil.rmtree(one)
        shutil.rmtree(other)


def move_in(
    staged: Path, repository: Path, steps: list[str], name: str, *, look: Callable[[Path], object]
) -> None:
    """Move the steps in, and then exchange the public model; the original is in ``staged`` then.

    Args:
        staged: the folder of the models.
        repository: where they go.
        steps: those that go first, in this order.
        name: of the public model.
        look: given the folder of the original, raises InputError if something has changed in it:
            called before the exchange, and after it, as somebody may have written there meanwhile.

    Raises:
        InputError: it stopped; where it did half way, ``--undo`` takes back what was done.
    """
    moved = 0
    try:
        for step in steps:
            os.utime(staged / step)  # from now on a server may load it
            os.rename(staged / step, repository / step)
            moved += 1
        time.sleep(SCAN_S)
        look(repository / name)
        exchange(staged / name, repository / name)
        try:
            look(staged / name)
        except InputError:
            exchange(staged / name, repository / name)
            raise
    except InputError as error:
        raise InputError(f"{error}, after --undo, which takes away what was written") from None
    except OSError as error:
        left = "--undo takes the rest away" if moved else "nothing else was written"
        raise InputError(
            f"{repository}: cannot be moved into: {error.strerror}; {repository / name} is as it "
            f"was, and {left}"
        ) from None


def take_away(repository: Path, steps: list[str], trash: Path) -> None:
    """Take steps out of a repository, in their order, those that are there."""
    for step in steps:
        if (repository / step).exists():
            os.rename(repository / step, trash / step)


def settles_in_s(folder: Path, within_s: float = POLL_S) -> float:
    """Return the time until no server that polls can be at the load of a model's last change.

    Args:
        folder: of the model.
        within_s: the most time between two scans, and what a load takes.
    """
    newest = max((path.lstat().st_mtime for path in (folder, *folder.rglob("*"))), default=0)
    return min(within_s, max(0.0, newest + within_s - time.time()))


def touch(folder: Path) -> None:
    """Make a model look new, so that a poller that saw it before reads it again."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() or path.name == "config.pbtxt":
            os.utime(path)
