"""Mutated ModelInfer messages and HTTP requests, by the hundred thousand: what breaks, what leaks?

Run as ``python -m deploy.benchmarks.mutation REPOSITORY OPERATOR MODEL --ca ca.pem``. It runs
``reverse-sigmoid serve REPOSITORY --gateway OPERATOR`` and asks with the key of the operator's
first client without a budget. Message and request number N are made from ``--seed`` and N alone,
so that one that breaks something can be sent again (``--first N --messages 1``). What
the victim itself would have answered is computed for every message that got an answer. Progress
is on stderr, JSON on stdout; it exits with 1 if something broke, leaked or came late.
"""

import argparse
import contextlib
import json
import sys
import threading
import time
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.audit.door import INFER, Door, find, told
from deploy.audit.http1 import Broken, answer
from deploy.benchmarks import arguments
from deploy.benchmarks.gateway_run import GatewayRun, VictimSession, drawn, run
from deploy.hostile.crowd import crowd
from deploy.hostile.heard import NEAR, Heard, Secrets, raw
from deploy.hostile.mutated_messages import Mutator
from deploy.hostile.mutated_requests import HttpMutator
from load_tests.asking.endpoint import API_KEY_HEADER, Access

#: An answer that comes later is one too late.
LATE_S = 2.0
#: How long it is waited for, so that a late one is told from none.
PATIENCE_S = 10.0
#: How long one is waited for to a request without an end, of which others may see one.
UNFINISHED_S = 0.5
#: How many that broke something are named.
_NAMED = 20


def main() -> None:
    """Send, and print what came of it."""
    shared = ("repository", "operator", "model", "--ca", "--victim", "--seed")
    parser = arguments.parser("mutation", *shared)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first of each")
    parser.add_argument("--threads", type=int, default=8)
    asked = parser.parse_args()
    with run(asked.repository, asked.operator) as running:
        report = _measure(asked, running)
    print(json.dumps(report, indent=2))
    sys.exit(not report["held"])


def _measure(asked: argparse.Namespace, running: GatewayRun) -> dict[str, Any]:
    (client,) = running.unlimited(1)
    found = drawn(running.wait(asked.model, Access(client.key, asked.ca)), asked.seed)
    door = find(found, key=client.key)
    victim = VictimSession.of(asked)
    secrets = victim.secrets(asked.model, found.inputs[0].values)
    before = running.servers()
    parts = {}
    for kind, count, sender in (
        ("messages", asked.messages, _Messages(door, asked.seed, secrets, victim)),
        ("requests", asked.requests, _Requests(door, asked.seed, secrets)),
    ):
        began = time.monotonic()
        sender.send_all(kind, asked.first, count, asked.threads)
        seconds = time.monotonic() - began
        parts[kind] = {
            "sent": count,
            "seconds": seconds,
            "per_second": count / max(seconds, 1e-9),
            **sender.report(),
        }
    restarts = [line for line in running.said if "start" in line or "DOWN" in line]
    broken = [name for one in parts.values() for name in ("late", "leaked") if one[name]]
    same = running.servers() == before
    return {
        "command": arguments.command("mutation"),
        "seed": asked.seed,
        "held": same and not restarts and not broken,
        "same_processes": same,
        "restarts": restarts,
        **parts,
    }


class _Sender:
    """Sends what has numbers, from several threads, and keeps count."""

    def __init__(self, door: Door, secrets: Secrets) -> None:
        self.door, self.heard, self._secrets = door, Heard(secrets), secrets
        self._lock = threading.Lock()
        self.late: dict[int, float] = {}
        self.leaked: dict[int, str] = {}
        self.counts: Counter[str] = Counter()

    def send_all(self, kind: str, first: int, count: int, threads: int) -> None:
        """Send them."""
        numbers, began = iter(range(first, first + count)), time.monotonic()

        def client(_: int) -> None:
            with self.connection() as connection:
                while True:
                    with self._lock:
                        number = next(numbers, None)
                    if number is None:
                        return
                    self.send(number, connection)
                    if number and number % 1000 == 0:
                        done = number - first
                        speed = done / (time.monotonic() - began)
                        print(f"{done} of {count} {kind}, {speed:.0f}/s", file=sys.stderr)

        crowd(threads, client)

    @contextlib.contextmanager
    def connection(self) -> Any:
        """Yield what a thread keeps from one to the next."""
        yield None

    def send(self, number: int, connection: Any) -> None:
        """Send the one of that number."""
        raise NotImplementedError

    def took(self, number: int, kind: str, said: bytes | str, seconds: float, asked: bytes) -> None:
        """Keep an answer."""
        self.heard.answer(kind, said, after_s=seconds)
        raw_answer = said.encode() if isinstance(said, str) else said
        leak = self._secrets.found_in(raw_answer, asked)
        with self._lock:
            if seconds > LATE_S:
                self.late[number] = round(seconds, 2)
            if leak is not None:
                self.leaked[number] = leak

    def report(self) -> dict[str, Any]:
        """Return what came back, for JSON."""
        heard = self.heard.report()
        return {
            "answers": dict(sorted(heard["answers"].items())),
            "examples": heard["examples"],
            "slowest_s": heard["slowest_s"],
            "late": dict(list(self.late.items())[:_NAMED]),
            "leaked": dict(list(self.leaked.items())[:_NAMED]),
            **self.counts,
        }


class _Messages(_Sender):
    """Messages over gRPC."""

    def __init__(self, door: Door, seed: int, secrets: Secrets, victim: VictimSession) -> None:
        super().__init__(door, secrets)
        from tritonclient.grpc import service_pb2

        self._mutator = Mutator(door.message, seed=seed, names=secrets.names)
        self._pb, self._victim = service_pb2, victim
        self._shape = tuple(service_pb2.ModelInferRequest.FromString(door.message).inputs[0].shape)

    @contextlib.contextmanager
    def connection(self) -> Any:
        with self.door.channel() as channel:
            yield channel.unary_unary(INFER)

    def send(self, number: int, connection: Any) -> None:
        message, metadata = self._mutator.message(number)
        keys = ((API_KEY_HEADER, self.door.key or ""), *metadata)
        began = time.monotonic()
        try:
            kind, said = told(connection, message, metadata=keys, timeout=PATIENCE_S)
        except ValueError:  # gRPC itself refuses the headers
            kind, said = "not sent", ""
        self.took(number, kind, said, time.monotonic() - began, message)
        if isinstance(said, bytes):
            self._compare(number, message, said)

    def _compare(self, number: int, message: bytes, said: bytes) -> None:
        """Count the answer's row as leaked if the victim itself would have given it."""
        values = self._values(message)
        with self._lock:
            self.counts["compared" if values is not None else "not_compared"] += 1
        if values is None:
            return
        with np.errstate(all="ignore"):
            rows = raw(self._victim(values))
        if np.isfinite(rows).all() and _tells(rows):
            leak = Secrets((), rows).found_in(said)
            if leak is not None:
                with self._lock:
                    self.leaked[number] = leak

    def _values(self, message: bytes) -> NDArray[np.float32] | None:
        """Return what the model was asked, None where readers of the message may disagree."""
        try:
            request = self._pb.ModelInferRequest.FromString(message)
            (tensor,) = request.inputs
            if request.raw_input_contents:
                values = np.frombuffer(request.raw_input_contents[0], np.float32)
            else:
                values = np.array(tensor.contents.fp32_contents, np.float32)
            return values.reshape(-1, *self._shape[1:])
        except Exception:
            return None


class _Requests(_Sender):
    """Requests over HTTP/1.1, each on a connection of its own."""

    def __init__(self, door: Door, seed: int, secrets: Secrets) -> None:
        super().__init__(door, secrets)
        self._mutator = HttpMutator(door, seed=seed, names=secrets.names)

    def send(self, number: int, connection: Any) -> None:
        request, whole = self._mutator.request(number)
        began = time.monotonic()
        kind, said = "closed", b""
        with contextlib.suppress(*Broken), contextlib.closing(self.door.connect()) as opened:
            opened.settimeout(PATIENCE_S if whole else UNFINISHED_S)
            with contextlib.suppress(OSError):
                opened.sendall(request)
            try:
                status, said = answer(opened, "HEAD" if request[:4] == b"HEAD" else "POST")
                kind = f"HTTP {status}"
            except TimeoutError:
                kind = "nothing" if whole else "nothing, to a request without an end"
        self.took(number, kind, said, (time.monotonic() - began) if whole else 0.0, request)


def _tells(rows: NDArray[np.float64]) -> bool:
    """Whether rows differ enough from what any defence says: not all alike, not one certain."""
    return bool((rows.max(axis=1) - rows.min(axis=1) > NEAR).all())


if __name__ == "__main__":
    main()
