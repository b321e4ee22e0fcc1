"""A server of ours: started so that it never outlives us, ended with all that it has started."""

import contextlib
import io
import os
import select
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from deploy.processes import die_with_parent, group
from exporters.files import owned_folders
from load_tests.asking.deferred_signals import deferred_signals
from postprocess.errors import InputError

_Child = TypeVar("_Child", bound="Child")


class Child(ABC):
    """A server in a process of its own; use it as a context manager.

    Entering starts it and waits until it serves; leaving stops it and leaves no process behind.
    Should this process be killed, the kernel tells the server to stop; so it does when the thread
    that entered ends, which therefore has to outlive the server.
    """

    program: str  #: what messages call it
    kill_after_s: float  #: what it may take to end by itself

    def __init__(self, log: Path) -> None:
        """Say which file its own log is appended to; nothing is started yet."""
        self.log = log
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._owner: io.IOBase | None = None  # open as long as the home is ours
        self._home: tempfile.TemporaryDirectory[str] | None = None

    @abstractmethod
    def start(self) -> None:
        """Start the server and wait until it serves."""

    def __enter__(self: _Child) -> _Child:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The process id, None where it was not started."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives; it may be deaf."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """What it ended with, None where it runs or was not started."""
        return None if self._process is None else self._process.poll()

    def stop(self, *, kill_after_s: float | None = None) -> None:
        """Stop the server and every process that it started; does nothing if there is none."""
        try:
            if self._process is not None:
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(self.kill_after_s if kill_after_s is None else kill_after_s)
        finally:  # a second Ctrl-C comes here at once
            if self._process is not None:
                group.kill(self._process)
                self._process = None
            if self._home is not None:
                self._home.cleanup()
                self._home = None

    def _make_home(self, prefix: str) -> Path:
        """Return a new folder that lives as long as the server."""
        owned_folders.remove_orphans(Path(tempfile.gettempdir()), "reverse-sigmoid-")
        self._home = tempfile.TemporaryDirectory(prefix=prefix)
        self._owner = owned_folders.own(Path(self._home.name))
        return Path(self._home.name).resolve()

    def _run(
        self, command: list[str], folder: Path, variables: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Return the started process; all that it prints goes to the log from ``_log_start`` on.

        Args:
            command: the path of a program, and its arguments.
            folder: to run in.
            variables: of its environment; ours by default.

        Raises:
            InputError: the log is no file that can be written.
        """
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            log = self.log.open("ab")
        except OSError as error:
            raise InputError(f"{self.log}: cannot be written: {error.strerror}") from None
        with log:
            if not self.log.is_file():
                raise InputError(f"{self.log}: expected a regular file for {self.program}'s log")
            self._log_start = log.tell()
            dying = [sys.executable, "-I", str(Path(die_with_parent.__file__)), str(os.getpid())]
            with deferred_signals():  # one within would leave a process that nobody knows
                self._process = subprocess.Popen(
                    [*dying, *command],
                    cwd=folder,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        return self._process

    def _comes_up(self, serves: Callable[[], bool], timeout_s: float) -> bool:
        """Return whether it serves in time; not if it has ended."""
        deadline = time.monotonic() + timeout_s
        while self.running and time.monotonic() <= deadline:
            if serves():
                return True
            time.sleep(0.05)
        return False


def ends_within(process: subprocess.Popen[bytes], timeout_s: float | None) -> bool:
    """Return whether it has ended by then, asleep until it ends; None waits for as long as it runs.

    ``Popen.wait`` with a timeout looks twenty times a second, all day long.
    """
    if process.poll() is not None:
        return True
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:  # a Linux before 5.3
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
        return process.poll() is not None
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        return bool(waiting.poll(None if timeout_s is None else timeout_s * 1000))
    finally:
        os.close(descriptor)
