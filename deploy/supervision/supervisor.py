"""Keeps a Triton serving and protected: asks, notices, brings back, reports.

All of it runs in the thread that started Triton, as Triton ends with that thread.
"""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from deploy.processes import cpu
from deploy.repository import protected
from deploy.repository.protected import ProtectedModel
from deploy.supervision.edits import Edits
from deploy.supervision.gateway_probe import GatewayProbe
from deploy.supervision.probe import RawAnswerError
from deploy.supervision.questions import ProbeError, alive
from deploy.supervision.recovery import RELOAD_S, Restarts, reload
from deploy.supervision.status_file import ModelStatus, Status
from deploy.supervision.stubs import Stubs
from deploy.supervision.traffic import Traffic
from deploy.supervision.watched import REMIND_S, DefenceOffError, Watched
from deploy.triton import server_log
from deploy.triton.server import ServerError, TritonServer
from postprocess.errors import InputError
from postprocess.question import path_in, read

#: How often a model that could not be watched is tried again.
AGAIN_S = 30.0
#: Time between two probes from which what has changed in the repository is not left until then.
RARELY_S = 2.0
#: How often what else has to run is looked after: an edit that takes a model from a client is
#: to hold within 2 s, however rarely models are asked.
TEND_S = 0.5
#: How many questions in a row Triton may leave unanswered although it computes: on a machine that
#: is too busy for it, a restart takes longest of all.
UNHEARD = 5


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
        gateway: GatewayProbe | None = None,
        suspects: Callable[[float], list[str]] = lambda since: [],
        refuse_opened: Callable[[Mapping[str, Any]], None] = lambda configs: None,
    ) -> None:
        """Learn what the server answers now.

        Args:
            server: started, all models ready.
            say: takes one line for the operator.
            probe_s: time between two probes.
            timeout_s: how long an answer may take.
            max_restarts: of Triton that do not help, within ``recovery.WINDOW_S``.
            tend: looks after what else has to run, every ``TEND_S``.
            gateway: asks through the gateway, where there is one.
            suspects: who had requests in flight since a time by the wall clock.
            refuse_opened: raises ``InputError`` where configurations are not what clients may
                be let in to.
            status_file: JSON that is rewritten after every round, see ``Status``.

        Raises:
            ServerError: a model that was protected is not any more, or Triton does not answer.
            InputError: the status file cannot be written.
        """
        self._server, self._say, self._status_file = server, say, status_file
        self._tend, self._gateway, self._suspects = tend, gateway, suspects
        self._refuse_opened = refuse_opened
        self._probe_s, self._timeout_s = probe_s, timeout_s
        self._restarts = Restarts(server, say, most=max_restarts)
        self._stubs = Stubs(server)
        self._edits = Edits(server, self._stubs)
        self._traffic, self._asked = Traffic(), Counter[str]()
        self._discovered: object = None  #: the configurations that were looked through last
        #: By their titles, as all that follows: one of several heads is watched by itself.
        self._watched: dict[str, Watched] = {}
        #: Models that could not be watched: their state, and when they are tried again.
        self._failed: dict[str, tuple[ProtectedModel, ModelStatus, float]] = {}
        self._connected: Any = None
        self._plain = server.plain()
        self._all_good_at = time.time()
        self._last_suspects: list[str] = []
        self._restarted_for = ""  #: the model that Triton was restarted for last
        self._remind_at = 0.0  #: that the status file cannot be written
        self._unheard = 0  #: questions in a row that Triton left unanswered although it computed
        self._learn()
        if status_file is not None:
            self._status().write(status_file)

    def _learn(self) -> None:
        """Look for the first time; a machine that is busy is asked as often as later on."""
        from tritonclient.utils import InferenceServerException

        for tries_left in reversed(range(UNHEARD)):
            try:
                self._edits.look(self._client(), self._plain)
                self._discover(self._client())
                return
            except InferenceServerException as error:
                self._server.wait(1)
                if not tries_left:
                    said = f"Triton does not answer: {error.message()}; see {self._server.log}"
                    raise ServerError(said) from None

    @property
    def names(self) -> list[str]:
        """The models that are watched."""
        return sorted(self._watched)

    def run(self) -> NoReturn:
        """Watch until interrupted.

        Raises:
            ServerError: restarts of Triton do not help.
        """
        state, due = "stopped", time.monotonic() + self._probe_s
        try:
            while True:
                try:
                    self._server.wait(min(TEND_S, self._probe_s))
                except ServerError as error:
                    self._restart(f"{error}", died=True)
                    due = -math.inf
                self._tend()
                edited = self._probe_s > RARELY_S and self._edits.unsettled
                if edited or time.monotonic() >= due:
                    self._round()
                    self._write_status()
                    due = time.monotonic() + self._probe_s
        except ServerError:
            state = "failed"
            raise
        finally:
            self._disconnect()
            self._write_status(state)

    def _client(self) -> Any:
        """Return the one connection of all rounds, which a restart ends."""
        if self._connected is None:
            self._connected = self._server.connect()
        return self._connected

    def _disconnect(self) -> None:
        if self._connected is not None:
            with contextlib.suppress(Exception):  # closed for good, whatever it thinks of that
                self._connected.close()
            self._connected = None
        self._plain.close()

    def _round(self) -> None:
        from tritonclient.utils import InferenceServerException

        good = True
        self._traffic.look(self._plain, self._asked, timeout_s=self._timeout_s)
        self._asked.clear()
        for one in list(self._watched.values()):
            if not self._traffic.is_due(one.protected.name) and one.unchanged():
                continue
            self._asked[one.probe.model] += 1
            error = one.examine(self._client())
            if error is not None:
                good = False
                if self._server.running:  # else the next round says so
                    self._recover(one, error)
        try:
            for line in self._edits.look(self._client(), self._plain):
                self._say(line)
            if hung := self._edits.hung():
                self._restart(hung)
            if self._failed or self._edits.configs is not self._discovered:
                self._discovered = self._edits.configs
                self._discover(self._client())
        except InferenceServerException as error:
            good = False
            if not self._watched and self._server.running:  # else a probe has told
                self._restart(f"Triton does not answer: {error.message()}", died=True)
        if good:
            self._unheard, self._all_good_at = 0, time.time()
            if self._gateway is not None:
                probes = [one.probe for one in self._watched.values()]
                self._gateway.look({one.model: one.inputs for one in probes}, self._say)

    def _discover(self, client: Any) -> None:
        """Begin to watch what is new in the repository, leave what was removed from it."""
        found = {one.title: one for one in protected.among(self._edits.configs)}
        outputs: dict[str, set[str]] = {}  # that a defence makes, by model
        for one in found.values():
            outputs.setdefault(one.name, set()).add(one.output)
        for one in self._known():
            asked = set() if one.title in found else self._asked_about(one.name)
            if not (self._server.repository / one.name).is_dir():
                self._leave(one.title, "removed from the repository")
            elif asked and asked <= outputs.get(one.name, set()):
                self._leave(one.title, "protected anew, with other outputs")
        for title, one in found.items():
            _, _, again_at = self._failed.get(title, (None, None, 0.0))
            if title not in self._watched and time.monotonic() >= again_at:
                self._refuse_unprotected(one.name, outputs[one.name])
                self._begin(one, client)
        for name in sorted(set(self._edits.configs) - {one.name for one in self._known()}):
            self._refuse_unprotected(name, set())
        try:
            self._refuse_opened(self._edits.configs)
        except InputError as error:
            raise ServerError(f"UNPROTECTED: {error}") from None

    def _known(self) -> list[ProtectedModel]:
        """Return what is watched, and what could not be."""
        watched = [one.protected for one in self._watched.values()]
        return [*watched, *(one for one, _, _ in self._failed.values())]

    def _leave(self, title: str, why: str) -> None:
        self._say(f"{title}: {why}, no longer watched")
        self._watched.pop(title, None)
        self._failed.pop(title, None)

    def _asked_about(self, name: str) -> set[str]:
        """Return the outputs that the questions beside a model are about."""
        try:
            return {one.looks.output for one in read(path_in(self._server.repository, name))}
        except InputError:  # who watches the model says so
            return set()

    def _refuse_unprotected(self, name: str, made: set[str]) -> None:
        """Refuse a model that was protected once, and now has outputs that no defence makes.

        Raises:
            ServerError: its questions ask for others, or there are none.
        """
        file = path_in(self._server.repository, name)
        served = {output.name for output in self._edits.configs[name].output}
        raw = sorted(self._asked_about(name).intersection(served) - made)
        if raw or (not made and file.exists()):
            stands = f"makes output {raw[0]}" if raw and made else "stands"
            raise ServerError(
                f"{name}: UNPROTECTED: {file} is of a protected model, and no defence {stands} in "
                "the configuration that is served; protect it again"
            )

    def _begin(self, found: ProtectedModel, client: Any) -> None:
        """Begin to watch a model; one that cannot be watched never stops the others."""
        one = Watched(
            found,
            self._stubs,
            self._edits,
            self._say,
            timeout_s=self._timeout_s,
            question=path_in(self._server.repository, found.name),
        )
        _, before, _ = self._failed.pop(found.title, (None, None, 0.0))
        try:
            one.begin(client)
        except DefenceOffError as error:
            if self._gateway is not None:  # nobody is let in to that
                raise ServerError(f"{found.title}: UNPROTECTED: {error}") from None
            one.down(f"UNPROTECTED: {error}", state="failed")
        except RawAnswerError as error:
            raise ServerError(f"{found.title}: UNPROTECTED: {error}") from None
        except ProbeError as error:
            reason = f"does not answer a probe: {error}"
            if before is None or before.reason != reason:
                self._say(f"{found.title}: UNWATCHED: {reason}; tried again every {AGAIN_S:g} s")
            failed = ModelStatus(found.defence, state="failed", reason=reason)
            self._failed[found.title] = found, failed, time.monotonic() + AGAIN_S
            return
        self._watched[found.title] = one
        if self._discovered is not None:
            self._say(f"{found.title}: watched from now on")

    def _recover(self, one: Watched, error: ProbeError) -> None:
        """Bring a model back the cheapest way, or say why that has to wait."""
        # A restart for something else says nothing about this.
        in_vain = self._restarted_for == one.name and one.good_at < self._restarts.started_at
        if isinstance(error, RawAnswerError):
            one.down(f"UNPROTECTED: {error}; Triton is stopped at once")
            if self._gateway is not None:  # which would let clients in before Triton is asked again
                raise ServerError(f"{one.name}: UNPROTECTED: {error}")
            self._restart(f"{one.name}: {error}", model=one.name, in_vain=in_vain)
            return
        if isinstance(error, DefenceOffError):
            one.down(f"UNPROTECTED: {error}", state="failed")
            return
        ran = cpu.nanoseconds(self._server.pid)
        if not alive(self._client()):
            self._unheard += 1
            said = f"{error}; Triton itself does not answer"
            if self._unheard < UNHEARD and cpu.nanoseconds(self._server.pid) != ran:
                one.status.reason = f"overloaded, or the machine is: {said}, but it computes"
            else:
                self._restart(f"{one.name}: {said}", died=True)
            return
        # Its own words show that it lives: one that was alive at the last answer may end a reload.
        refuses = one.refuses(error)
        dead = {} if refuses else one.dead_models(self._client())
        one.down(f"DOWN: {error}; at fault: {', '.join(dead) or 'none of its models alone'}")
        held = self._held(one, error)
        if held:
            one.down(f"STAYS DOWN until this is mended: {held}", state="failed")
            return
        if refuses:
            # A restart would make the defence forget what it has seen, and answer again.
            said = f"REFUSED by its defence: {error}; see {self._server.log}"
            one.down(said, state="failed")
            return
        if in_vain and any(self._answers_since_restart(other) for other in self._watched.values()):
            one.down(f"STAYS DOWN: a restart of Triton did not help: {error}", state="failed")
            return
        self._write_status()
        told = False
        if dead:
            told, how = reload(self._server, dead, self._client())
            self._say(f"{one.name}: {how}")
        if not told or not self._answers_in_time(one):
            self._restart(f"{one.name}: {error}", model=one.name, in_vain=in_vain)

    def _answers_since_restart(self, one: Watched) -> bool:
        return not one.is_down and one.good_at > self._restarts.started_at

    def _held(self, one: Watched, error: ProbeError) -> str | None:
        """Return what only the operator can mend: a configuration that no start would take."""
        for model in (one.protected.name, *one.protected.models):
            problem = self._edits.refused_on_disk(model)
            if problem:
                return problem
        if error.unknown and self._server.control_mode != "none":
            start = server_log.recent(self._server.log)
            return server_log.refusal(self._server.log, start, one.protected.name) or str(error)
        return None

    def _answers_in_time(self, one: Watched) -> bool:
        deadline = time.monotonic() + RELOAD_S + self._server.poll_s
        while time.monotonic() < deadline:
            try:
                self._server.wait(0.25)
                one.check(self._client())
                return True
            except (ProbeError, ServerError):
                if not self._server.running:
                    return False
        return False

    def _restart(
        self, why: str, *, model: str = "", in_vain: bool = False, died: bool = False
    ) -> None:
        """Restart Triton; say who was in flight where it ``died``, by itself or to the world."""
        self._restarted_for = model
        self._last_suspects = self._suspects(self._all_good_at) if died else []
        if self._last_suspects:
            why = f"{why}; requests in flight then: of {', '.join(self._last_suspects)}"
        for one in self._watched.values():
            if not one.is_down:
                one.down(f"DOWN: {why}")
        if not self._watched:
            self._say(why)
        self._write_status("recovering")
        self._disconnect()
        self._restarts.restart(why, in_vain=in_vain)

    def _status(self, state: str | None = None) -> Status:
        models = {name: one.status for name, one in self._watched.items()}
        models |= {name: failed for name, (_, failed, _) in self._failed.items()}
        for one in models.values():
            one.parameters = self._edits.in_force.get(one.defence, {})
            one.rejected_edit = self._edits.problem(one.defence)
        gateway = None if self._gateway is None else self._gateway.status
        states = {one.state for one in models.values()}
        states |= set() if gateway is None else {gateway.state}
        worst = next((bad for bad in ("failed", "recovering") if bad in states), "ready")
        return Status(
            state=state or worst,
            triton_pid=self._server.pid,
            restarts=self._restarts.count,
            recoveries=sum(one.recoveries for one in self._watched.values()),
            models=models,
            gateway=gateway,
            suspects=self._last_suspects,
        )

    def _write_status(self, state: str | None = None) -> None:
        if self._status_file is not None:
            try:
                self._status(state).write(self._status_file)
            except InputError as error:
                if time.monotonic() >= self._remind_at:
                    self._remind_at = time.monotonic() + REMIND_S
                    self._say(str(error))
