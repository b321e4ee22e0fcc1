"""What ``serve`` knows about its models, as a JSON file for machines."""

from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from exporters.files.atomic_file import write_json
from postprocess.errors import InputError


@dataclass
class ModelStatus:
    """One protected model."""

    defence: str  #: the model that defends it
    #: ready; recovering; failed: it waits for the operator; unwatched: it takes no question, and
    #: only its process is watched
    state: str = "ready"
    reason: str | None = None  #: why it is not ready, or that it is overloaded
    question: str | None = None  #: what it is asked: kept, made up, defence alone, none
    last_probe_at: str | None = None  #: of the last good probe, ISO 8601, UTC
    probe_latency_ms: float | None = None  #: of the last good probe
    parameters: dict[str, str] = field(default_factory=dict)  #: in force, see ``Edits``
    rejected_edit: str | None = None  #: why config.pbtxt, or a fused graph, was refused


@dataclass
class GatewayStatus:
    """The gateway, asked as its clients ask it."""

    state: str = "ready"  #: ready; refusing: it answers with an error; failed: it does not answer
    reason: str | None = None  #: why it is not ready
    restarts: int = 0  #: because it did not answer, since serve was started
    last_probe_at: str | None = None  #: of the last good answer, ISO 8601, UTC


@dataclass
class Status:
    """All of it; ``write`` adds when it was written, ISO 8601, UTC."""

    state: str = "ready"  #: ready; recovering or failed, if any model is; stopped
    triton_pid: int | None = None
    restarts: int = 0  #: of Triton, since serve was started
    recoveries: int = 0  #: outages that ended, since serve was started
    models: dict[str, ModelStatus] = field(default_factory=dict)
    gateway: GatewayStatus | None = None  #: None without one
    suspects: list[str] = field(default_factory=list)  #: clients in flight when Triton last died

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            InputError: it cannot be written.
        """
        try:
            write_json(path, {"written_at": now(), **asdict(self)})
        except OSError as error:
            raise InputError(f"--status-file {path}: cannot be written: {error.strerror}") from None


def now() -> str:
    """Return the time, ISO 8601, UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
