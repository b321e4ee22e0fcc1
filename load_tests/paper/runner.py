"""The runs that are missing, several at a time; each in a file of its own."""

import importlib.metadata
import json
import os
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exporters.atomic_file import write_text
from load_tests.paper.plan import Result
from load_tests.paper.run import Run, Victim
from load_tests.paper.victims import is_trained
from postprocess.errors import InputError, ReverseSigmoidError

Task = Run | Victim
#: Told after every run: its name, runs done, runs in all, seconds it took.
Tell = Callable[[str, int, int, float], None]


class RunError(ReverseSigmoidError):
    """A run failed; those that had finished are kept."""


class Runner:
    """The runs of a folder: ``runs/`` has their results, ``victims/`` what they steal."""

    def __init__(self, folder: Path, *, data_dir: Path | None, jobs: int, tell: Tell) -> None:
        """Take the folder; nothing is run yet.

        Args:
            folder: where runs and victims are kept.
            data_dir: see ``exporters.datasets``.
            jobs: runs at a time.
            tell: told of progress.
        """
        self._runs, self._victims = folder / "runs", folder / "victims"
        self._data_dir, self._jobs, self._tell = data_dir, jobs, tell
        self._seen: dict[str, Result] = {}

    def known(self, run: Run) -> Result | None:
        """Return a run's measures from its file, None while it has not been made.

        Raises:
            InputError: the file holds something else.
        """
        name = run.name
        if name not in self._seen:
            path = self.path(run)
            if not path.is_file():
                return None
            try:
                content = json.loads(path.read_text())
                if content["run"] != json.loads(json.dumps(run.to_json())):
                    raise InputError(f"{path}: holds another run than its name says")
                self._seen[name] = content["result"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path}: not a run's file: {error}") from None
        return self._seen[name]

    def path(self, run: Run) -> Path:
        """Return where the run's file is, or will be."""
        return self._runs / f"{run.name}.json"

    def make(self, runs: Iterable[Run]) -> None:
        """Make the runs that are missing; returns when all are there.

        Raises:
            RunError: one of them failed; others under way have been given up.
        """
        missing = list({run.name: run for run in runs if self.known(run) is None}.values())
        victims = list(
            {
                run.victim.name: run.victim
                for run in missing
                if not is_trained(run.victim, self._victims)
            }.values()
        )
        if not missing:
            return
        total, done = len(victims) + len(missing), 0
        with _Processes(min(self._jobs, total), self._victims, self._data_dir) as processes:
            # Victims first: runs of one victim would each wait for it.
            for tasks in (victims, missing):
                for task, answer, seconds in processes.answers(tasks):
                    done += 1
                    if isinstance(task, Run):
                        self._keep(task, answer["result"], seconds)
                    self._tell(task.name, done, total, seconds)

    def again(self, run: Run) -> Result:
        """Return the measures of a run made anew; its file is neither read nor written.

        Raises:
            RunError: it failed.
        """
        tasks: list[Task] = [run]
        if not is_trained(run.victim, self._victims):
            tasks.insert(0, run.victim)
        with _Processes(1, self._victims, self._data_dir) as processes:
            for done, task in enumerate(tasks, 1):
                ((_, answer, seconds),) = processes.answers([task])
                self._tell(task.name, done, len(tasks), seconds)
        result: Result = answer["result"]
        return result

    def _keep(self, run: Run, result: Result, seconds: float) -> None:
        path = self.path(run)
        content = {
            "run": run.to_json(),
            "result": result,
            "seconds": round(seconds, 1),
            "versions": _versions(),
            "command": f"reverse-sigmoid paper {path.name} --data-dir DIR --out OUT",
        }
        write_text(path, json.dumps(content, indent=1) + "\n")
        self._seen[run.name] = result


class _Processes:
    """So many processes, each asked by a thread of its own."""

    def __init__(self, jobs: int, victims: Path, data_dir: Path | None) -> None:
        self._jobs, self._idle = jobs, queue.SimpleQueue[subprocess.Popen[str]]()
        self._all: list[subprocess.Popen[str]] = []
        self._command = [
            *(sys.executable, "-m", "load_tests.paper.process", str(victims)),
            *([str(data_dir)] if data_dir else []),
        ]

    def __enter__(self) -> "_Processes":
        threads = str(max(1, (os.cpu_count() or 1) // self._jobs))
        environment = {
            **os.environ,
            **{name: threads for name in _THREADS if self._jobs > 1},
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        for _ in range(self._jobs):
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl-C is for us alone
            )
            self._all.append(process)
            self._idle.put(process)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._all:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def answers(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, dict[str, Any], float]]:
        """Yield each task with its answer and the seconds it took, as they come."""
        waiting = iter(tasks)
        flying: dict[Future[tuple[dict[str, Any], float]], Task] = {}
        with ThreadPoolExecutor(self._jobs) as threads:
            try:
                while True:
                    while len(flying) < self._jobs and (task := next(waiting, None)) is not None:
                        flying[threads.submit(self._ask, task)] = task
                    if not flying:
                        return
                    for future in wait(flying, return_when=FIRST_COMPLETED).done:
                        task = flying.pop(future)
                        answer, seconds = future.result()
                        if "error" in answer:
                            raise RunError(f"{task.name}: {answer['error']}")
                        yield task, answer, seconds
            except BaseException:
                for process in self._all:  # whoever waits for them goes on
                    process.kill()
                raise

    def _ask(self, task: Task) -> tuple[dict[str, Any], float]:
        process = self._idle.get()
        start = time.monotonic()
        asked = {"run": task.to_json()} if isinstance(task, Run) else {"victim": asdict(task)}
        try:
            process.stdin.write(json.dumps(asked) + "\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            line = process.stdout.readline()  # type: ignore[union-attr]
        except (OSError, ValueError):
            line = ""
        if not line:
            return {"error": "its process ended; stderr says why"}, time.monotonic() - start
        self._idle.put(process)
        answer: dict[str, Any] = json.loads(line)
        return answer, time.monotonic() - start


_THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def _versions() -> dict[str, str]:
    """Return what the numbers were made with."""
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    found = {"python": sys.version.split()[0], "backend": backend}
    for name in ("keras", "numpy", backend):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
