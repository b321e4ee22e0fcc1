"""One protected model under watch: its probe, and what reloads do to the known answer."""

import copy
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deploy.repository.protected import ProtectedModel
from deploy.supervision.edits import Edits
from deploy.supervision.probe import ChangedAnswerError, Probe, RawAnswerError
from deploy.supervision.questions import ProbeError, alive
from deploy.supervision.status_file import ModelStatus, now
from deploy.supervision.stubs import Stubs
from postprocess.errors import InputError
from postprocess.question import Question, read

#: Changed answers in a row, without any reload, until they are taken for a failure. Rounded
#: answers may differ now and then by a digit.
CHANGES = 3
#: How often a lasting outage is reported again.
REMIND_S = 60


class DefenceOffError(ProbeError):
    """The defence that runs now is ``none``, which it was not when the model was protected."""


class Watched:
    """A protected model, or one head of it, its known answer and its state."""

    def __init__(
        self,
        protected: ProtectedModel,
        stubs: Stubs,
        edits: Edits,
        say: Callable[[str], None],
        *,
        timeout_s: float,
        question: Path,
    ) -> None:
        """Say what to watch; ``begin`` has to learn its answer.

        Args:
            protected: the model.
            stubs: the server's processes.
            edits: tells the parameters in force.
            say: takes one line for the operator.
            timeout_s: how long an answer may take.
            question: the file that stands beside the model, or does not.

        One of several heads is watched by itself, by the question about its output.
        """
        self.protected, self.name = protected, protected.title
        self.status = ModelStatus(protected.defence)
        self._processes, self._edits, self._say = stubs, edits, say
        self._file, self._read_at = question, -1
        self.probe = Probe(protected, timeout_s=timeout_s)
        #: The parameters of the defence that the model was protected with, as far as is known.
        self._wanted: Mapping[str, str] = {}
        #: The processes at the last good answer, and how many there were at the very last.
        self._stubs: dict[str, list[int]] = {}
        self._counts: dict[str, int] = {}
        self.recoveries = 0
        #: When it last answered as it should, by the monotonic clock.
        self.good_at = float("-inf")
        self._changes = 0
        self._down_since: float | None = None
        self._said: dict[str, float] = {}

    def begin(self, client: Any) -> None:
        """Learn the known answer.

        Raises:
            ProbeError: neither the model nor its defence answers, or what is answered is raw.
        """
        self._parameters = self._in_force(client)
        self._read_at = self._stamp()
        self.probe.kept = self._question()
        self._wanted = self.probe.kept.parameters if self.probe.kept else self._parameters
        for warning in self.probe.choose(client, self._parameters):
            self._say(f"warning: {warning}")
        self._stubs = self._living(fresh=True)
        self._refuse_off(self._parameters)
        self._good()

    def check(self, client: Any) -> None:
        """Ask once; learn anew where a reload explains another answer.

        Raises:
            ProbeError: the model does not answer as it should.
        """
        stubs = self._living()  # before the answer: whatever comes after explains no change
        if self.probe.blind and self._lost():
            raise ProbeError("its process is gone")
        if self._stamp() != self._read_at:  # retuned, or protected again
            self._relearn(client)
        try:
            self.probe.check(client)
            self._changes = 0
        except (ChangedAnswerError, RawAnswerError) as error:
            stubs = self._living(fresh=True)
            if (stubs, self._in_force(client)) != (self._stubs, self._parameters):
                self._relearn(client)
            else:
                self._changes += 1
                if isinstance(error, RawAnswerError) or self._changes >= CHANGES:
                    raise
        self._settle(stubs)
        self._refuse_off(self._edits.in_force.get(self.protected.defence, {}))
        self._good()

    def unchanged(self) -> bool:
        """Say whether all is as it was at the last good answer, as far as is seen unasked."""
        return (
            self.status.state == "ready"
            and not self.is_down
            and self._living() == self._stubs
            and self._stamp() == self._read_at
            and self._edits.in_force.get(self.protected.defence) == self._parameters
        )

    def _relearn(self, client: Any) -> None:
        """Take the answer after a reload for the known one.

        Raises:
            ProbeError: there is none, or it is raw although the parameters are the same.
        """
        parameters = self._in_force(client)
        fresh, stamp = copy.copy(self.probe), self._stamp()
        if stamp != self._read_at:
            fresh.take(self._question())
            self._wanted = fresh.kept.parameters if fresh.kept else self._wanted
        self._refuse_off(parameters)
        fresh.learn(client, parameters)
        if fresh.like_raw and not self.probe.like_raw:
            if parameters == self._parameters:
                raise RawAnswerError("answered with the victim's own scores")
            self._say(
                f"warning: {self.name}: these parameters leave the victim's scores as they are"
            )
        self.probe, self._parameters, self._changes = fresh, parameters, 0
        self._read_at = stamp

    def _refuse_off(self, in_force: Mapping[str, str]) -> None:
        """Refuse that a model is unprotected which was protected once.

        Raises:
            DefenceOffError: the defence is switched off.
        """
        if in_force.get("defense") == "none" != self._wanted.get("defense"):
            raise DefenceOffError(
                f"{self.protected.defence} says defense none, and so clients get the victim's own "
                "probabilities; put the defence back, or protect the model again"
            )

    def examine(self, client: Any) -> ProbeError | None:
        """Return what is wrong with the model, None if nothing is.

        Unless a process is gone, or Triton deaf, it is asked twice: a single failure may be a
        reload's. Where no answer came in time but others were answered, it is overloaded,
        which no recovery would help.
        """
        try:
            self.check(client)
            return None
        except (RawAnswerError, DefenceOffError) as error:
            return error
        except ProbeError as error:
            if self._lost() or not alive(client):
                return error
            first, before = error, self.probe.answered(client)
        try:
            self.check(client)
            return None
        except ProbeError as error:
            after = self.probe.answered(client)
            if first.silent and error.silent and before is not None and after != before:
                self.status.reason = f"overloaded: {error}, while others are answered"
                return None
            return error

    def dead_models(self, client: Any) -> dict[str, ProbeError]:
        """Return the models that lost a process, or else do not answer alone, and how."""
        lost = {model: ProbeError("its process is gone") for model in self._lost()}
        return lost or self.probe.dead_models(client)

    @property
    def is_down(self) -> bool:
        """Whether an outage was reported that has not ended."""
        return self._down_since is not None

    def refuses(self, error: ProbeError) -> bool:
        """Say whether the defence runs and refuses the scores that it is fed."""
        said = f"{self.protected.defence}: " in str(error)
        return said and not self.protected.fused and "internal error" not in str(error)

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
        if self.probe.blind:
            self.status.state = "unwatched"
            self.status.reason = "it takes no made-up question: only its process is watched"
        self.status.question = self.probe.question
        self.status.last_probe_at = now()
        self.status.probe_latency_ms = round(self.probe.latency_ms, 2)
        self.good_at = time.monotonic()
        if self._down_since is not None:
            self.recoveries += 1
            self._say(f"{self.name}: answers again, {time.monotonic() - self._down_since:.1f} s "
                      "after it was found down")  # fmt: skip
            self._down_since, self._said = None, {}

    def _question(self) -> Question | None:
        """Return the question that stands beside the model now; say what is wrong with it."""
        try:
            asked = {one.looks.output: one for one in read(self._file)}
            return asked.get(self.protected.output)
        except InputError as error:
            self._say(f"warning: {self.name}: {error}; until then another question is asked")
            return None

    def _stamp(self) -> int:
        try:
            return self._file.stat().st_mtime_ns
        except OSError:
            return 0

    def _settle(self, stubs: dict[str, list[int]]) -> None:
        """Take these processes for those that have to be there, once they are as many as before.

        A reload runs the old and the new ones side by side for a while.
        """
        counts = {model: len(pids) for model, pids in stubs.items()}
        if counts == self._counts or not self._stubs:
            self._stubs = stubs
        self._counts = counts

    def _lost(self) -> list[str]:
        """Return the models with fewer processes than at the last good answer."""
        now = self._living()
        return [model for model, stubs in self._stubs.items() if len(now[model]) < len(stubs)]

    def _living(self, *, fresh: bool = False) -> dict[str, list[int]]:
        stubs = self._processes.now(fresh=fresh, of=self.protected.models)
        return {model: stubs.get(model, []) for model in self.protected.models}

    def _in_force(self, client: Any) -> dict[str, str]:
        return self._edits.read_in_force(client, self.protected.defence)
