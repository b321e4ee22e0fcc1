"""Clients that send at given times, whatever the last answer took."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

#: Asks once; what was wrong with the answer, "" if nothing.
Ask = Callable[[], str]
#: Connects a client and yields its question.
Connect = Callable[[], AbstractContextManager[Ask]]


class Paced:
    """Clients with one thread each; they send while the block is inside.

    An answer's time counts from when its request was due, so that a server that stands still is
    not asked less.
    """

    def __init__(self, clients: Sequence[Connect], *, rate: float) -> None:
        """Say who sends, and how many requests a second all of them send together."""
        self._clients, self._period = clients, len(clients) / rate
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.failures: Counter[str] = Counter()
        self.latencies_ms: list[list[float]] = [[] for _ in clients]

    def __enter__(self) -> "Paced":
        self._threads = ThreadPoolExecutor(len(self._clients))
        self._start = time.monotonic()
        self._running = [
            self._threads.submit(self._send, number) for number in range(len(self._clients))
        ]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the answers that are due.

        Raises:
            Exception: what ended a client, other than a wrong answer.
        """
        self._stop.set()
        self._threads.shutdown()
        if kind is None:
            for one in self._running:
                one.result()

    def _send(self, number: int) -> None:
        latencies = self.latencies_ms[number]
        due = self._start + self._period * number / len(self._clients)
        with self._clients[number]() as ask:
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                wrong = ask()
                if wrong:
                    with self._lock:
                        self.failures[wrong] += 1
                else:
                    latencies.append((time.monotonic() - due) * 1000)
                due += self._period
