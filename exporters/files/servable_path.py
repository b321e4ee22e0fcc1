"""Where a model repository may lie for Triton's Python backend to load from it.

The backend starts each model through a shell, unquoted, so that white space and the shell's own
characters in a path hang it (or are run); and its models get every byte beyond ASCII mangled.
Seen with Triton 2.51.
"""

import string
from pathlib import Path

from postprocess.errors import InputError

_SHELLS_OWN = frozenset("\"'`$&|;<>()*?[]{}\\")
_PLAIN = frozenset(string.printable) - frozenset(string.whitespace) - _SHELLS_OWN
#: Linux takes 4,095 characters of any path, and Triton adds file names; 3,448 were read.
MOST_CHARACTERS = 3400


def refuse(repository: Path, way_out: str = "give") -> None:
    """Refuse what is one model, and a path that Triton cannot read models from, links followed.

    Args:
        repository: that is to be served.
        way_out: what to do with the repository around a model.

    Raises:
        InputError: why not, and a way out.
    """
    if (repository / "config.pbtxt").is_file():
        raise InputError(
            f"{repository}: expected a model repository, got one model of it; {way_out} "
            f"{repository.absolute().parent}"
        )
    path = str(repository.resolve())
    reason = _reason(path)
    if reason is not None:
        where = str(repository.absolute())
        shown = where if where.isprintable() else repr(where)
        leads = "" if path == where else f", which leads to {path!r}"
        raise InputError(
            f"{shown}{leads}: {reason}; move the model repository, to /srv/models for example"
        )


def refuse_temporary(folder: Path) -> None:
    """Refuse a temporary folder, an absolute path, that Triton cannot be started from.

    Raises:
        InputError: why not, and a way out.
    """
    # The dynamic linker splits a list of libraries at colons.
    reason = "colons separate paths" if ":" in str(folder) else _reason(str(folder))
    if reason is not None:
        raise InputError(f"{folder}: {reason}; let TMPDIR name another folder, such as /tmp")


def _reason(path: str) -> str | None:
    """Return why Triton cannot read what lies at an absolute path, None if it can."""
    for character in path:
        if character in _PLAIN:
            continue
        if character.isspace():
            return "Triton's Python backend hangs on a path with white space"
        if not character.isascii():
            return f"Triton's Python backend cannot read a path with {character!r}, not ASCII"
        return f"Triton's Python backend hangs on a path with {character!r}, which a shell reads"
    if len(path) > MOST_CHARACTERS:
        return f"Triton cannot read a path of {len(path)} characters; at most {MOST_CHARACTERS}"
    return None
