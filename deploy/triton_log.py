"""What Triton says about models in its own log, in one line each."""

import contextlib
import re
from pathlib import Path

# Where in a file it is comes from protobuf, in a line of its own before Triton's.
_PARSE_ERROR = "Error parsing text-format inference.ModelConfig: "


def size(log: Path) -> int:
    """Return where the log ends now; 0 if it cannot be read."""
    with contextlib.suppress(OSError):
        return log.stat().st_size
    return 0


def first_error(log: Path, start: int) -> str:
    """Return the first error that Triton logged about a model, or about anything."""
    lines = _lines(log, start)
    place = "".join(
        f": {line.partition(_PARSE_ERROR)[2]}" for line in lines if _PARSE_ERROR in line
    )
    for mark in ("model_repository_manager.cc", ""):
        for line in lines:
            if line.startswith("E") and mark in line:
                return _said(line) + place
    return f"see {log}"


def refusal(log: Path, start: int, model: str) -> str | None:
    """Return why Triton last refused to load a model, None if it did not since ``start``."""
    name = re.escape(model)
    refused = re.compile(
        rf"failed to load '{name}' version [0-9]+: (.*)|Poll failed for model directory '{name}': "
        rf"(.*)|(in ensemble {name}, .*)"
    )
    # Inference errors name the ensemble alike, but are not logged as the manager's.
    managers = ("model_lifecycle.cc", "model_repository_manager.cc")
    for line in reversed(_lines(log, start)):
        if line.startswith("E") and any(manager in line for manager in managers):
            found = refused.search(_said(line))
            if found:
                return one_line(next(group for group in found.groups() if group))
    return None


def one_line(reason: str) -> str:
    """Return Triton's reason without its stack trace and the names of its exceptions."""
    text = " ".join(reason.replace("\\n", "\n").split("\n\nAt:")[0].split())
    return text.removeprefix("Internal: ").removeprefix("TritonModelException: ")


def _lines(log: Path, start: int) -> list[str]:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace").splitlines()
    return []


def _said(line: str) -> str:
    return line.partition("] ")[2].strip('"') or line
