"""What a check has to say, to people and to machines."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or weak."""

    level: str  #: "error" or "warning"
    code: str  #: its kind, for machines
    model: str  #: the model's folder; "" for the repository
    message: str


def error(code: str, model: str, message: str) -> Finding:
    """Return what would stop a load, or let raw scores out."""
    return Finding("error", code, model, message)


def raw_output(path: Path, output: str) -> Finding:
    """Return that a model, of this config.pbtxt, gives an output that no defence has perturbed."""
    message = f"{path}: output {output}: expected what a defence makes, got what none has perturbed"
    return error("raw-output", path.parent.name, message)


def warning(code: str, model: str, message: str) -> Finding:
    """Return what loads, and defends badly."""
    return Finding("warning", code, model, message)
