"""What undoing needs: the original config.pbtxt, and which files the model had.

It is kept in a hidden folder of the defence, of several the last one, which is the first that comes
and the last that goes, so that every state in between can be undone.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from exporters.repository.model_repository import defence_name
from postprocess.errors import InputError

#: The folder that a record stands in.
HOLDER = ".reverse_sigmoid"
_CONFIG, _FILES = "config.pbtxt", "files.json"


@dataclass(frozen=True)
class Record:
    """The original model, but for the files that it still has."""

    config: bytes | None  #: of its config.pbtxt, None where it had none
    holder: str  #: the model that has its files now
    files: list[str]  #: all of them, relative
    folders: list[str]
    written: dict[str, str]  #: files of the holder that are ours, and what they hold, hashed
    model: str  #: the public one
    defences: list[str]  #: the record's own last
    #: Size and time of last change of each file, by which it is seen whether it was written since;
    #: records of before have none.
    stamps: dict[str, list[int]] = field(default_factory=dict)


def holders(repository: Path) -> Mapping[str, Path]:
    """Return where the records of a repository stand, by the public models that they are of."""
    found = {}
    for where in sorted(repository.glob(f"*/{HOLDER}")):
        try:
            found[json.loads((where / _FILES).read_text(encoding="utf-8"))["model"]] = where
        except (OSError, ValueError, TypeError, KeyError):  # of an only head, it is known still
            found[where.parent.name.removesuffix(defence_name(""))] = where
    return found


def holder(folder: Path) -> Path | None:
    """Return where the record of a public model's folder stands, None where it has none."""
    return holders(folder.parent).get(folder.name)


def contents(folder: Path) -> tuple[list[str], list[str]]:
    """Return the files and the folders in a model's folder, relative, links not followed."""
    files: list[str] = []
    folders: list[str] = []
    for path in sorted(folder.rglob("*")):
        inner = path.is_dir() and not path.is_symlink()
        (folders if inner else files).append(str(path.relative_to(folder)))
    return files, folders


def config_of(folder: Path) -> bytes | None:
    """Return a model's config.pbtxt, None where it has none."""
    path = folder / _CONFIG
    return path.read_bytes() if path.is_file() else None


def stamp(file: Path) -> list[int]:
    """Return what changes when a file is written: its size, and when that was, in ns."""
    status = file.lstat()
    return [status.st_size, status.st_mtime_ns]


def digest(file: Path) -> str:
    """Return what tells whether a file was edited."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write(where: Path, kept: Record) -> None:
    """Write a record to a folder that does not exist yet, all but the config.pbtxt itself."""
    where.mkdir(parents=True)
    values = asdict(kept)
    del values["config"]
    (where / _FILES).write_text(json.dumps(values, indent=1), encoding="utf-8")


def read(folder: Path) -> Record:
    """Return the record of a public model's folder.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    where = holder(folder)
    if where is None:
        raise InputError(
            f"{folder}: nothing to undo: it was not protected in place, no defence of it has a "
            f"{HOLDER}"
        )
    try:
        values = json.loads((where / _FILES).read_text(encoding="utf-8"))
        config = (where / _CONFIG).read_bytes() if _CONFIG in values["files"] else None
        return Record(
            config=config, **{"model": folder.name, "defences": [where.parent.name]} | values
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{where}: expected {_FILES} as protect wrote it: {type(error).__name__}: {error}; "
            f"the original {_CONFIG}, if there was one, is beside it: put the model back by hand"
        ) from None
