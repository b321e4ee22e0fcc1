"""What a check has to say, to people and to machines."""

from dataclasses import dataclass


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


def warning(code: str, model: str, message: str) -> Finding:
    """Return what loads, and defends badly."""
    return Finding("warning", code, model, message)
