"""Keeps a Triton serving and protected: asks, notices, brings back, reports.

All of it runs in the thread that started Triton, as Triton ends with that thread.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from deploy import protected, triton_log
from deploy.edits import Edits
from deploy.probe import RawAnswerError
from deploy.questions import ProbeError, alive
from deploy.recovery import RELOAD_S, Restarts, reload
from deploy.status_file import Status
from deploy.triton_server import ServerError, TritonServer
from deploy.watched import Watched
from postprocess.errors import InputError


class Supervisor:
    """Watches one started server until it is interrupted."""

    def __init__(
        self,
        server: TritonServer,
        say: Callable[[str], None],
        *,
        probe_s: float = 1,
        timeout_s: float = 3,
        max_restarts: int = 5,
        status_file: Path | None = None,
        tend: Callable[[], None] = lambda: None,
    ) -> None:
        """Learn what the server answers now.

        Args:
            server: started, all models ready.
            say: takes one line for the operator.
            probe_s: time between two probes.
            timeout_s: how long an answer may take.
            max_restarts: of Triton, within ``recovery.WINDOW_S``.
            tend: looks after what else has to run, once a round.
            status_file: JSON that is rewritten after every round, see ``Status``.

        Raises:
            ServerError: a defence does not answer.
            InputError: the status file cannot be written.
        """
        self._server, self._say, self._status_file = server, say, status_file
        self._tend = tend
        self._probe_s, self._timeout_s = probe_s, timeout_s
        self._restarts = Restarts(server, say, most=max_restarts)
        self._edits = Edits(server)
        self._watched: dict[str, Watched] = {}
        with server.connect() as client:
            self._edits.look(client)
            self._discover(client)
        if status_file is not None:
            self._status("ready").write(status_file)

    @property
    def names(self) -> list[str]:
        """The ensembles that are watched."""
        return sorted(self._watched)

    def run(self) -> NoReturn:
        """Watch until interrupted.

        Raises:
            ServerError: Triton was restarted too often.
        """
        state = "stopped"
        try:
            while True:
                try:
                    self._server.wait(self._probe_s)
                except ServerError as error:
                    self._restart(f"{error}")
                self._tend()
                self._round()
                self._write_status()
        except ServerError:
            state = "failed"
            raise
        finally:
            self._write_status(state)

    def _round(self) -> None:
        from tritonclient.utils import InferenceServerException

        for one in list(self._watched.values()):
            with self._server.connect() as client:
                error = one.examine(client)
                if error is not None and self._server.running:  # else the next round says so
                    self._recover(one, error, client)
        with self._server.connect() as client:
            try:
                for line in self._edits.look(client):
                    self._say(line)
                self._discover(client)
            except InferenceServerException as error:
                if not self._watched and self._server.running:  # else a probe has told
                    self._restart(f"Triton does not answer: {error.message()}")

    def _discover(self, client: Any) -> None:
        """Begin to watch what is new in the repository, leave what was removed from it."""
        for name in self.names:
            if not (self._server.repository / name).is_dir():
                self._say(f"{name}: removed from the repository, no longer watched")
                del self._watched[name]
        for found in protected.find(client):
            if found.name not in self._watched:
                one = Watched(
                    found, self._server, self._edits, self._say, timeout_s=self._timeout_s
                )
                try:
                    one.begin(client)
                except ProbeError as error:
                    raise ServerError(f"{found.name}: does not answer a probe: {error}") from None
                self._watched[found.name] = one

    def _recover(self, one: Watched, error: ProbeError, client: Any) -> None:
        """Bring an ensemble back the cheapest way, or say why that has to wait."""
        if isinstance(error, RawAnswerError):
            one.down(f"UNPROTECTED: {error}; Triton is stopped at once")
            self._restart(f"{one.name}: {error}")
            return
        if not alive(client):
            self._restart(f"{one.name}: {error}; Triton itself does not answer")
            return
        dead = one.dead_models(client)
        one.down(f"DOWN: {error}; at fault: {', '.join(dead) or 'none of its models alone'}")
        held = self._held(one, error)
        if held:
            one.down(f"STAYS DOWN until this is mended: {held}", state="failed")
            return
        self._write_status()
        way = reload(self._server, dead, client) if dead else None
        if way is not None:
            self._say(f"{one.name}: {way}")
        if way is None or not self._answers_in_time(one):
            self._restart(f"{one.name}: {error}")

    def _held(self, one: Watched, error: ProbeError) -> str | None:
        """Return what only the operator can mend: a configuration that no start would take."""
        for model in (one.name, *one.protected.models):
            problem = self._edits.refused_on_disk(model)
            if problem:
                return problem
        if error.unknown and self._server.control_mode != "none":
            start = max(0, triton_log.size(self._server.log) - 100_000)
            return triton_log.refusal(self._server.log, start, one.name) or str(error)
        return None

    def _answers_in_time(self, one: Watched) -> bool:
        deadline = time.monotonic() + RELOAD_S + self._server.poll_s
        while time.monotonic() < deadline:
            try:
                self._server.wait(0.25)
                with self._server.connect() as client:
                    one.check(client)
                return True
            except (ProbeError, ServerError):
                if not self._server.running:
                    return False
        return False

    def _restart(self, why: str) -> None:
        for one in self._watched.values():
            if not one.is_down:
                one.down(f"DOWN: {why}")
        if not self._watched:
            self._say(why)
        self._write_status("recovering")
        self._restarts.restart(why)

    def _status(self, state: str | None = None) -> Status:
        models = {name: one.status for name, one in self._watched.items()}
        for one in models.values():
            one.parameters = self._edits.in_force.get(one.defence, {})
            one.rejected_edit = self._edits.problem(one.defence)
        states = {one.state for one in models.values()}
        worst = next((bad for bad in ("failed", "recovering") if bad in states), "ready")
        return Status(
            state=state or worst,
            triton_pid=self._server.pid,
            restarts=self._restarts.count,
            recoveries=sum(one.recoveries for one in self._watched.values()),
            models=models,
        )

    def _write_status(self, state: str | None = None) -> None:
        if self._status_file is not None:
            try:
                self._status(state).write(self._status_file)
            except InputError as error:
                self._say(str(error))
