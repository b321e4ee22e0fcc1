"""A hostile client in a process of its own."""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from deploy.audit.door import Door
from deploy.hostile.attacks import ATTACKS
from deploy.hostile.heard import Heard, Secrets
from postprocess.errors import ReverseSigmoidError

#: How long the process may take beyond the time of its attacks, on a busy machine.
PATIENCE_S = 60.0

#: An attack by name, and who makes it.
Order = tuple[str, Door]


class AttackerError(ReverseSigmoidError):
    """The process did not say what it heard."""


class Attacker:
    """Makes attacks, all at once, while the block is inside; use it as a context manager.

    After the block, or after ``wait``, ``reports`` says what each heard, in the order given.
    """

    def __init__(self, orders: Sequence[Order], secrets: Secrets, seconds: float) -> None:
        """Say what to do; nothing is started yet."""
        context = multiprocessing.get_context("spawn")
        self._seconds = seconds
        self._here, there = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_attack, args=(list(orders), secrets, seconds, there), daemon=True
        )
        self._there = there
        self.reports: list[dict[str, Any]] = []

    def __enter__(self) -> "Attacker":
        self._process.start()
        self._there.close()
        if not self._here.poll(PATIENCE_S):
            self._end()
            raise AttackerError("the attacker did not begin")
        self._here.recv()
        return self

    @property
    def at_it(self) -> bool:
        """Whether the attacks go on."""
        return self._process.is_alive() and not self._here.poll()

    def wait(self) -> None:
        """Wait for the end of the attacks.

        Raises:
            AttackerError: the process ended early, or not at all.
        """
        try:
            if not self._here.poll(self._seconds + PATIENCE_S):
                raise AttackerError("the attacker did not end")
            self.reports = self._here.recv()
        except EOFError:
            raise AttackerError("the attacker ended early; its error is above") from None
        finally:
            self._end()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and not self.reports:
                self.wait()
        finally:
            self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.join()


def _attack(orders: list[Order], secrets: Secrets, seconds: float, there: Connection) -> None:
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
