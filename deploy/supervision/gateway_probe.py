"""The question of health, asked through the gateway as a client asks it.

``serve`` gives itself an API key for this run alone: it stands in no file of the operator's, has
no budget, and nobody else's is touched. Envoy that answers with an error is reported; Envoy that
does not answer while Triton does is ended, for ``gateway.door`` to start it again.
"""

import http.client
import json
import os
import signal
import ssl
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from deploy.processes import cpu
from deploy.supervision.questions import Tensors
from deploy.supervision.status_file import GatewayStatus, now
from exporters.question import tensors
from load_tests.asking.endpoint import API_KEY_HEADER
from postprocess.ready import body_of

#: Time between two questions, and silent ones in a row until Envoy is ended: where it uses no CPU
#: time, where it does.
EVERY_S, SILENT, SILENT_BUSY = 2.0, 3, 20


class Listener(NamedTuple):
    """What a gateway listens for."""

    models: tuple[str, ...]  #: public ones
    address: tuple[str, int]  #: where this machine reaches it
    encrypted: bool  #: whether by TLS


class GatewayProbe:
    """Asks through the listener, every few seconds."""

    def __init__(
        self,
        gateway: Callable[[], Listener],
        pid: Callable[[], int | None],
        key: str,
        *,
        timeout_s: float,
    ) -> None:
        """Say whom to ask.

        Args:
            gateway: what it listens for now.
            pid: of Envoy, None where it does not run.
            key: an API key that the gateway knows.
            timeout_s: how long an answer may take.
        """
        self._gateway, self._pid, self._key, self._timeout_s = gateway, pid, key, timeout_s
        self.status = GatewayStatus()
        self._silent, self._asked = 0, 0.0
        self._said = self.status.state
        self._ran: int | None = None  # nanoseconds, by the last question

    def look(self, questions: Mapping[str, Tensors], say: Callable[[str], None]) -> None:
        """Ask, if it is time; to be called only while Triton itself answers.

        Args:
            questions: model to inputs that it takes.
            say: takes one line for the operator.
        """
        if time.monotonic() - self._asked < EVERY_S:
            return
        self._asked = time.monotonic()
        before = self.status.state
        try:
            self._ask(questions)
        except (TimeoutError, ConnectionRefusedError) as error:
            self._silent += 1
            self._at_fault("failed", f"does not answer: {error or 'no answer in time'}")
        except (OSError, http.client.HTTPException) as error:  # full, perhaps; it is awake
            self._silent = 0
            self._at_fault("refusing", f"closes connections: {error!r}")
        except _RefusedError as error:
            self._silent = 0
            self._at_fault("refusing", f"answers {error}")
        else:
            self._silent = 0
            self.status.state, self.status.reason = "ready", None
            self.status.last_probe_at = now()
        # A refusal is told once it is seen again: Triton may have died since it was asked.
        state = self.status.state
        if state != self._said and (state != "refusing" or state == before):
            self._said = state
            reason = f"the GATEWAY is at fault, Triton answers: it {self.status.reason}"
            say("the gateway answers again" if state == "ready" else reason)
        before_this, self._ran = self._ran, cpu.nanoseconds(self._pid())
        if self._silent >= (SILENT if self._ran == before_this else SILENT_BUSY):
            self._end(say)

    def _at_fault(self, state: str, reason: str) -> None:
        self.status.state, self.status.reason = state, reason

    def _end(self, say: Callable[[str], None]) -> None:
        """End Envoy; whoever tends it starts it again."""
        self._silent = 0
        pid = self._pid()
        if pid is not None:
            self.status.restarts += 1
            say("the gateway is restarted: it was silent while Triton answered")
            os.kill(pid, signal.SIGKILL)

    def _ask(self, questions: Mapping[str, Tensors]) -> None:
        gateway = self._gateway()
        known = {model: questions[model] for model in gateway.models if questions.get(model)}
        headers = {API_KEY_HEADER: self._key}
        if known:
            # The smallest question: it is the way that is asked about, not the model.
            model = min(known, key=lambda one: sum(part.nbytes for part in known[one].values()))
            body, more = body_of(tensors(dict(known[model]), batched=False), output=None)
            self._send("POST", f"/v2/models/{model}/infer", body, headers | more)
        else:
            self._send("GET", "/v2/health/ready", None, headers)

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> None:
        connection = self._connect()
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            said = response.read()
            if response.status != 200:
                raise _RefusedError(f"{response.status}{_reason(said)}")
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        """Return a new connection to our own listener: whose certificate it has we know."""
        gateway = self._gateway()
        address = gateway.address
        if not gateway.encrypted:
            return http.client.HTTPConnection(*address, timeout=self._timeout_s)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(*address, timeout=self._timeout_s, context=context)


class _RefusedError(Exception):
    """An answer of Envoy's, but not the one that was asked for."""


def _reason(said: bytes) -> str:
    try:
        return f": {' '.join(str(json.loads(said)['error']).split())}"
    except (ValueError, KeyError, TypeError):
        return ""
