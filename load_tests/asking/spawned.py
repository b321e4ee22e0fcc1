"""A client in a process of its own, of which nothing stays."""

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from load_tests.asking.deferred_signals import deferred_signals
from load_tests.asking.endpoint import EndpointError

_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class Spawned:
    """Runs ``work(*arguments, its_end)`` elsewhere; ``line`` and ``its_end`` are one pipe.

    The kernel closes ``line`` even for a parent that was killed, which the work may take for its
    end.
    """

    def __init__(self, who: str, work: Callable[..., None], *arguments: Any) -> None:
        """Say what to run, and what messages call it; nothing is started yet."""
        spawn = multiprocessing.get_context("spawn")  # a fork would share gRPC's threads
        self.line, self._its_end = spawn.Pipe()
        given = (work, arguments, self._its_end)
        self._process = spawn.Process(target=_run, args=given, daemon=True)
        self._who = who

    def start(self, timeout_s: float | None = None) -> Any:
        """Start it and return the first that it says.

        Raises:
            EndpointError: see ``hear``; it is gone then.
        """
        resource_tracker.ensure_running()  # whose start would let through what is blocked below
        try:
            with deferred_signals():  # one within would leave a child that nobody knows
                mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # the child has it too
                self._process.start()
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                self._its_end.close()
            return self.hear(timeout_s)
        except BaseException:
            self.end()
            raise

    @property
    def has_said_more(self) -> bool:
        """Whether ``hear`` returns, or raises, at once."""
        return self.line.poll()

    def hear(self, timeout_s: float | None = None) -> Any:
        """Return what it says next.

        Raises:
            EndpointError: it has ended without a word, or says none for so long.
        """
        try:
            if timeout_s is not None and not self.line.poll(timeout_s):
                raise EndpointError(f"{self._who} has said nothing for {timeout_s:g} s")
            return self.line.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            raise EndpointError(f"{self._who} ended early: exit code {code}") from None

    def end(self) -> None:
        """Kill it, if it has not ended; whoever hears it in another thread hears its end."""
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()
        self.line.close()


def _run(work: Callable[..., None], arguments: tuple[Any, ...], its_end: Connection) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING - {signal.SIGINT})  # Ctrl-C: the parent's
    work(*arguments, its_end)
