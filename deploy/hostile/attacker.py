"""A hostile client in a process of its own."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from deploy.audit.door import Door
from deploy.hostile.attacks import ATTACKS
from deploy.hostile.heard import Heard, Secrets
from load_tests.asking.spawned import Spawned

#: How long the process may take beyond the time of its attacks, on a busy machine.
PATIENCE_S = 60.0

#: An attack by name, and who makes it.
Order = tuple[str, Door]


class Attacker:
    """Makes attacks, all at once, while the block is inside; use it as a context manager.

    After the block, or after ``wait``, ``reports`` says what each heard, in the order given.
    """

    def __init__(self, orders: Sequence[Order], secrets: Secrets, seconds: float) -> None:
        """Say what to do; nothing is started yet."""
        self._seconds = seconds
        self._client = Spawned("the attacker", _attack, list(orders), secrets, seconds)
        self.reports: list[dict[str, Any]] = []

    def __enter__(self) -> "Attacker":
        self._client.start(PATIENCE_S)
        return self

    @property
    def at_it(self) -> bool:
        """Whether the attacks go on."""
        return not self._client.has_said_more

    def wait(self) -> None:
        """Wait for the end of the attacks.

        Raises:
            EndpointError: the process ended early, its error is on stderr, or not at all.
        """
        self.reports = self._client.hear(self._seconds + PATIENCE_S)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and not self.reports:
                self.wait()
        finally:
            self._client.end()


def _attack(orders: list[Order], secrets: Secrets, seconds: float, there: Connection) -> None:
    import tritonclient.grpc  # noqa: F401, before the time of the attacks and of answers counts

    os.nice(10)  # a stranger's client does not take the server's processor
    there.send("begun")
    heard = [Heard(secrets) for _ in orders]
    with ThreadPoolExecutor(len(orders)) as threads:
        running = [
            threads.submit(ATTACKS[name].run, door, one, seconds)
            for (name, door), one in zip(orders, heard, strict=True)
        ]
        for one in running:
            one.result()
    there.send([one.report() for one in heard])
