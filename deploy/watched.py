"""One protected ensemble under watch: its probe, and what reloads do to the known answer."""

import copy
import time
from collections.abc import Callable
from typing import Any

from deploy.edits import Edits
from deploy.probe import ChangedAnswerError, Probe, RawAnswerError
from deploy.protected import Protected
from deploy.questions import ProbeError, alive
from deploy.status_file import ModelStatus, now
from deploy.triton_server import TritonServer

#: Changed answers in a row, without any reload, until they are taken for a failure. Rounded
#: answers may differ now and then by a digit.
CHANGES = 3
#: How often a lasting outage is reported again.
REMIND_S = 60


class Watched:
    """An ensemble, its known answer and its state."""

    def __init__(
        self,
        protected: Protected,
        server: TritonServer,
        edits: Edits,
        say: Callable[[str], None],
        *,
        timeout_s: float,
    ) -> None:
        """Say what to watch; ``begin`` has to learn its answer."""
        self.protected, self.name = protected, protected.name
        self.status = ModelStatus(protected.defence)
        self._server, self._edits, self._say = server, edits, say
        self._probe = Probe(protected, timeout_s=timeout_s)
        self.recoveries = 0
        self._changes = 0
        self._down_since: float | None = None
        self._said: dict[str, float] = {}

    def begin(self, client: Any) -> None:
        """Learn the known answer.

        Raises:
            ProbeError: neither the ensemble nor its defence answers.
        """
        for warning in self._probe.choose(client):
            self._say(f"warning: {warning}")
        self._stubs, self._parameters = self._living(), self._in_force(client)
        self._good()

    def check(self, client: Any) -> None:
        """Ask once; learn anew where a reload explains another answer.

        Raises:
            ProbeError: the ensemble does not answer as it should.
        """
        stubs = self._living()  # before the answer: whatever comes after explains no change
        try:
            self._probe.check(client)
            self._changes = 0
        except (ChangedAnswerError, RawAnswerError) as error:
            if (stubs, self._in_force(client)) != (self._stubs, self._parameters):
                self._relearn(client)
            else:
                self._changes += 1
                if isinstance(error, RawAnswerError) or self._changes >= CHANGES:
                    raise
        self._stubs = stubs
        self._good()

    def _relearn(self, client: Any) -> None:
        """Take the answer after a reload for the known one.

        Raises:
            ProbeError: there is none, or it is raw although the parameters are the same.
        """
        parameters = self._in_force(client)
        fresh = copy.copy(self._probe)
        fresh.learn(client)
        if self._probe.distinct and not fresh.distinct:
            if parameters == self._parameters:
                raise RawAnswerError("answered with the victim's own scores")
            self._say(
                f"warning: {self.name}: these parameters leave the victim's scores as they are"
            )
        self._probe, self._parameters, self._changes = fresh, parameters, 0

    def examine(self, client: Any) -> ProbeError | None:
        """Return what is wrong with the ensemble, None if nothing is.

        Unless a process is gone, or Triton deaf, it is asked twice: a single failure may be a
        reload's. Where no answer came in time but others were answered, it is overloaded,
        which no recovery would help.
        """
        try:
            self.check(client)
            return None
        except RawAnswerError as error:
            return error
        except ProbeError as error:
            if self._lost() or not alive(client):
                return error
            first, before = error, self._probe.answered(client)
        try:
            self.check(client)
            return None
        except ProbeError as error:
            after = self._probe.answered(client)
            if first.silent and error.silent and before is not None and after != before:
                self.status.reason = f"overloaded: {error}, while others are answered"
                return None
            return error

    def dead_models(self, client: Any) -> dict[str, ProbeError]:
        """Return the models that lost a process, or else do not answer alone, and how."""
        lost = {model: ProbeError("its process is gone") for model in self._lost()}
        return lost or self._probe.dead_models(client)

    @property
    def is_down(self) -> bool:
        """Whether an outage was reported that has not ended."""
        return self._down_since is not None

    def down(self, text: str, *, state: str = "recovering") -> None:
        """Report an outage, unless that was just said."""
        self.status.state, self.status.reason = state, text
        if self._down_since is None:
            self._down_since = time.monotonic()
        if time.monotonic() - self._said.get(text, -REMIND_S) >= REMIND_S:
            self._said[text] = time.monotonic()
            self._say(f"{self.name}: {text}")

    def _good(self) -> None:
        self.status.state, self.status.reason = "ready", None
        self.status.last_probe_at = now()
        self.status.probe_latency_ms = round(self._probe.latency_ms, 2)
        if self._down_since is not None:
            self.recoveries += 1
            self._say(f"{self.name}: answers again, {time.monotonic() - self._down_since:.1f} s "
                      "after it was found down")  # fmt: skip
            self._down_since, self._said = None, {}

    def _lost(self) -> list[str]:
        """Return the models with fewer processes than at the last good answer."""
        now = self._living()
        return [model for model, stubs in self._stubs.items() if len(now[model]) < len(stubs)]

    def _living(self) -> dict[str, list[int]]:
        stubs = self._server.stubs()
        return {model: stubs.get(model, []) for model in self.protected.models}

    def _in_force(self, client: Any) -> dict[str, str]:
        return self._edits.read_in_force(client, self.protected.defence)
