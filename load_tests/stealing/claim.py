"""Folders that remember by which settings they were filled."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from exporters.files.atomic_file import write_json
from postprocess.errors import InputError

_T = TypeVar("_T")
#: Where files are, which may change.
_PLACES = ("data_dir", "query_set", "test_set", "calibration")


def claim(path: Path, settings: Any, *, where: str, ours: bool = False) -> None:
    """Write settings to a file, or find the same ones there from an earlier call.

    Args:
        path: of the file, in the folder that it speaks for.
        settings: a dataclass. Where the files of its rows are may change.
        where: what the error message calls the folder.
        ours: whether all that the folder holds without the file is known to be of these settings.

    Raises:
        InputError: the folder is of other settings or holds other files, or cannot be written.
    """
    try:
        holds = [each for each in path.parent.iterdir() if not each.name.startswith(".")]
    except FileNotFoundError:
        holds = []
    except OSError as error:
        raise InputError(f"{where}: {error.strerror}") from None
    if path.exists():
        theirs = asdict(read(path, type(settings)))
        for name, value in asdict(settings).items():
            if theirs[name] != value and name not in _PLACES:
                raise InputError(
                    f"{where}: holds an attack with {name} {theirs[name]!r}, not {value!r}; "
                    "choose another folder"
                )
        if theirs == asdict(settings):
            return
    elif holds and not ours:
        raise InputError(f"{where}: holds other files; choose another folder")
    try:
        write_json(path, asdict(settings))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def read(path: Path, kind: type[_T]) -> _T:
    """Return what ``claim`` wrote.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    try:
        return kind(**json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise InputError(f"{path}: expected the record of an attack") from None
