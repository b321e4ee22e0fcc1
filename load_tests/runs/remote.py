"""What ``cluster`` has a Dask worker do: it keeps files, and asks a process of ``worker``.

The process is started with the conditions that the command names, whatever Dask's own is started
with, and works with the files that the command sent. All of it ends with the Dask worker.
"""

import hashlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import postprocess
from load_tests.runs.conditions import Conditions
from load_tests.runs.processes import Process, Reply
from load_tests.runs.run import Victim
from load_tests.runs.victims import files

#: Folders of a session: what ``--data-dir`` and the folder's ``victims`` are on the command's side.
DATA, VICTIMS = "data", "victims"
_PACKAGES = ("postprocess", "exporters", "load_tests")
#: Seconds between two looks at whether anybody still waits for an answer.
_LOOK_S = 1.0
_processes: dict[str, Process] = {}


@dataclass(frozen=True, kw_only=True)
class Session:
    """What all tasks of a command have in common."""

    name: str
    conditions: Conditions
    has_data: bool  #: whether data sets are sent; else the worker fetches them itself

    def _home(self, worker: Any) -> Path:
        return Path(worker.local_directory) / self.name

    def keep(self, name: str, start: int, content: bytes) -> None:
        """Put a part of a file into the session's folder, from a byte on."""
        from distributed import get_worker

        path = self._home(get_worker()) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab" if start else "wb") as file:
            file.write(content)

    def answer(self, asked: dict[str, Any]) -> Reply:
        """Return what ``worker`` answers, and for a victim its ``files`` beside it."""
        from distributed import get_worker

        home = self._home(get_worker())
        if self.name not in _processes:
            data_dir = home / DATA if self.has_data else None
            _processes[self.name] = Process(home / VICTIMS, data_dir, self.conditions)
        with _ended_where_nobody_waits(_processes[self.name]):
            answer = _processes[self.name].ask(asked)
        if "victim" in asked and not answer:
            made = files(Victim(**asked["victim"]), home / VICTIMS)
            answer["files"] = {path.name: path.read_bytes() for path in made}
        return answer

    def end(self, dask_worker: Any) -> None:
        """End the session's process and remove its files; returns nothing.

        Args:
            dask_worker: given by Dask, by this name, where no task is run.
        """
        process = _processes.pop(self.name, None)
        if process is not None:
            process.end()
        shutil.rmtree(self._home(dask_worker), ignore_errors=True)


def code() -> str:
    """Return a hash of the code that decides results, as it stands here."""
    found = hashlib.blake2b(digest_size=16)
    root = Path(postprocess.__file__).parents[1]
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return found.hexdigest()


@contextmanager
def _ended_where_nobody_waits(process: Process) -> Iterator[None]:
    """End the process as soon as Dask has cancelled this task: its command was ended."""
    from distributed import get_worker

    worker, done = get_worker(), threading.Event()
    key = worker.get_current_task()

    def look() -> None:
        while not done.wait(_LOOK_S):
            task = worker.state.tasks.get(key)
            if task is None or task.state == "cancelled":
                process.end()
                return

    threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        done.set()
