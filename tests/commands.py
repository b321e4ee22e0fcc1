"""Running the command line as a person would, and seeing what it leaves behind."""

import collections
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import ClassVar

COMMAND = str(Path(sys.prefix) / "bin" / "reverse-sigmoid")
#: How long a command may take, and a condition to come true, where much else runs. Nothing is as
#: slow as that; without an end, a fault would hang the tests.
PATIENCE_S, SOON_S = 3600, 300


@contextlib.contextmanager
def signals_of_a_terminal():
    """Have the children that are started within end by the signals that end a program.

    Under nohup, and in the background of a script, some are ignored, which children inherit. A
    signal with a handler goes back to what it does by default where a program is started.
    """
    ignored = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) == signal.SIG_IGN
    ]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def run_command(*arguments, cwd, timeout=PATIENCE_S, env=None):
    """Run reverse-sigmoid as a person would and return what it printed."""
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )


def run_on_a_full_disk(kib, *words, cwd, timeout=PATIENCE_S):
    """Run a program none of whose files may have more than so many KiB, nor its processes'."""
    return subprocess.run(
        ["/bin/bash", "-c", f'ulimit -f {kib}; exec "$0" "$@"', *map(str, words)],
        cwd=cwd, timeout=timeout, capture_output=True, text=True, check=False,
    )  # fmt: skip


def call_command(*arguments, cwd):
    """Do the same within this process: no Python starts, and nothing is imported twice.

    Both outputs are caught where a program writes to them, so what libraries say counts too.
    """
    from deploy import entry

    with contextlib.ExitStack() as stack:
        stack.enter_context(_kept_as_they_are())
        out, err = (stack.enter_context(_caught(number)) for number in (1, 2))
        os.chdir(cwd)
        sys.argv = [COMMAND, *map(str, arguments)]
        sys.stdout, sys.stderr = out, err
        try:
            entry.run()
        except SystemExit as end:
            code = int(end.code) if isinstance(end.code, (int, type(None))) else 1
        said = []
        for each in (out, err):
            each.flush()
            each.seek(0)
            said.append(each.read())
    if code > 128:  # by a signal to this process, which is to end the tests
        raise KeyboardInterrupt
    return subprocess.CompletedProcess(sys.argv, code, *said)


@contextlib.contextmanager
def _caught(number):
    """Give a file in place of one of the process's two outputs."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        kept = os.dup(number)
        os.dup2(file.fileno(), number)
        try:
            yield file
        finally:
            os.dup2(kept, number)
            os.close(kept)


@contextlib.contextmanager
def _kept_as_they_are():
    """Take back what a command changes in its process, and show its warnings as Python does."""
    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
    environment, folder, hook = dict(os.environ), Path.cwd(), sys.unraisablehook
    kept = sys.argv, sys.stdout, sys.stderr
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for hidden in (DeprecationWarning, PendingDeprecationWarning, ImportWarning,
                       ResourceWarning):  # fmt: skip
            warnings.simplefilter("ignore", hidden)
        warnings.showwarning = lambda *said: sys.stderr.write(warnings.formatwarning(*said[:4]))
        try:
            yield
        finally:
            sys.argv, sys.stdout, sys.stderr = kept
            sys.unraisablehook = hook
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment)
            for one, handler in handlers.items():
                signal.signal(one, handler)


def processes_naming(path):
    """Return the command lines of all living processes that name a path."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if str(path) in command and int(entry.name) != os.getpid():
                    found.append(command)
    return found


def processes_of(session):
    """Return the processes that a command in a session of its own has left there."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(entry.name)) == session:
                found.append(int(entry.name))
    return found


def wait_until(condition, timeout_s=SOON_S):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_no_process_naming(path):
    deadline = time.monotonic() + SOON_S
    while found := processes_naming(path):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


class Running:
    """A reverse-sigmoid command in a session of its own, its two outputs in files."""

    #: The last ones, for what they said to stand beside a test that failed.
    last: ClassVar = collections.deque(maxlen=3)

    def __init__(self, *arguments, cwd):
        self.stdout, self.stderr = cwd / "stdout.txt", cwd / "stderr.txt"
        self.last.append((arguments, self.stderr))
        with (
            self.stdout.open("wb") as out,
            self.stderr.open("wb") as err,
            signals_of_a_terminal(),
        ):
            self.process = subprocess.Popen(
                [COMMAND, *map(str, arguments)],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def wait_for(self, text, *, timeout_s=SOON_S):
        """Wait until one of the outputs holds a text."""
        self.wait_until(
            lambda: text in self.stdout.read_text() + self.stderr.read_text(), timeout_s
        )

    def wait_until(self, condition, timeout_s=SOON_S):
        deadline = time.monotonic() + timeout_s
        while not condition():
            said = self.stdout.read_text() + self.stderr.read_text()
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)

    def stop(self, number=signal.SIGINT, *, timeout_s=SOON_S):
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
