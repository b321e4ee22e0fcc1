"""What Triton says about models in its own log, in one line each."""

import contextlib
import re
from pathlib import Path

# Where in a file it is comes from protobuf, in a line of its own before Triton's.
_PARSE_ERROR = "Error parsing text-format inference.ModelConfig: "
_ERROR = re.compile(r"E[0-9]{4} ")
# Which models there are, and why one did not load, is logged by these files of Triton's.
_MANAGERS = ("model_lifecycle.cc", "model_repository_manager.cc")
# How a load ends, and how one begins that does not: it waits for a process that is gone.
_LOAD_ENDED = "successfully loaded '", "failed to load '"
_LOAD_HANGS = "Failed to preinitialize Python stub: Python model file not found"
_RECENT_BYTES = 100_000
# Errors by their mark that every start without a GPU logs.
_HARMLESS = ("CudaDriverHelper has not been initialized",)


def size(log: Path) -> int:
    """Return where the log ends now; 0 if it cannot be read."""
    with contextlib.suppress(OSError):
        return log.stat().st_size
    return 0


def recent(log: Path) -> int:
    """Return where the part of the log begins that tells what Triton is at."""
    return max(0, size(log) - _RECENT_BYTES)


def first_error(log: Path, start: int) -> str:
    """Return the first error that Triton logged, for when it exits; where to look if none."""
    for line in _lines(log, start):
        if _ERROR.match(line) and not any(text in line for text in _HARMLESS):
            return reason_of(_said(line))
    return f"see {log}"


def refusal(log: Path, start: int, model: str) -> str | None:
    """Return why Triton last refused to load a model, None if it did not since ``start``."""
    name = re.escape(model)
    # Inference errors name the ensemble alike, but are not logged as the manager's.
    return _last(
        log,
        start,
        rf"failed to load '{name}' version [0-9]+: (.*)|Poll failed for model directory '{name}': "
        rf"(.*)|(in ensemble {name}, .*)",
    )


def hangs(log: Path) -> bool:
    """Say whether the last load that Triton began found no model.py, and so never ends."""
    for line in reversed(_lines(log, recent(log))):
        if any(end in line for end in _LOAD_ENDED):
            return False
        if _LOAD_HANGS in line:
            return True
    return False


def missing_step(log: Path, start: int, ensemble: str) -> str | None:
    """Return which model an ensemble was last refused for the want of, None if for none."""
    name = re.escape(ensemble)
    return _last(log, start, rf"(ensemble '?{name}'? (?:depends on|contains models) .*)")


def reason_of(reason: str) -> str:
    """Return Triton's reason without its stack trace and the names of its exceptions."""
    text = " ".join(reason.replace("\\n", "\n").split("\n\nAt:")[0].split())
    return text.removeprefix("Internal: ").removeprefix("TritonModelException: ")


def _last(log: Path, start: int, pattern: str) -> str | None:
    """Return what the pattern's groups hold in the last of the managers' errors that has it."""
    lines = _lines(log, start)
    for index in reversed(range(len(lines))):
        line = lines[index]
        if _ERROR.match(line) and any(manager in line for manager in _MANAGERS):
            found = re.search(pattern, _said(line))
            if found:
                said = reason_of(next(group for group in found.groups() if group))
                return said + _place(lines[:index])
    return None


def _place(before: list[str]) -> str:
    """Return where in its file protobuf stopped, if the last line says so."""
    _, mark, place = (before[-1] if before else "").partition(_PARSE_ERROR)
    return f": {place}" if mark else ""


def _lines(log: Path, start: int) -> list[str]:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(start if start <= size(log) else 0)  # it may have been emptied since
        return file.read().decode(errors="replace").splitlines()
    return []


def _said(line: str) -> str:
    return line.partition("] ")[2].strip('"') or line
