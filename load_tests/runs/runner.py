"""The runs that are missing, several at a time; each in a file of its own."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from exporters.files.alone import alone
from exporters.files.atomic_file import write_json
from load_tests.runs.cluster import Cluster
from load_tests.runs.conditions import Conditions
from load_tests.runs.made import WITH, Made, read
from load_tests.runs.processes import Places, Processes, Task, answered
from load_tests.runs.run import Measures, Run, Victim
from load_tests.runs.victims import answers_digest, is_trained
from postprocess.errors import InputError, ReverseSigmoidError

#: Told after every run: its name, runs done, runs in all, seconds it took, why it failed if so.
Tell = Callable[[str, int, int, float, str], None]


class RunError(ReverseSigmoidError):
    """Runs failed; those that had finished are kept."""


class Runner:
    """The runs of a folder: ``runs/`` has their results, ``victims/`` what they steal.

    Runs are made within its context: processes that make them are kept until it is left.
    """

    def __init__(
        self,
        folder: Path,
        *,
        data_dir: Path | None,
        jobs: int,
        tell: Tell,
        conditions: Conditions | None = None,
        mixed: bool = False,
        cluster: Cluster | None = None,
    ) -> None:
        """Take the folder; nothing is run yet.

        Args:
            folder: where runs and victims are kept.
            data_dir: see ``exporters.training.datasets``.
            jobs: runs at a time.
            tell: told of progress.
            conditions: what its processes are started with; without them, each with its share of
                this machine's processors.
            mixed: whether a run may stand beside those of another training of its victim.
            cluster: whose workers make the runs; without it, processes of this machine.
        """
        self._folder, self._runs, self._victims = folder, folder / "runs", folder / "victims"
        self._data_dir, self._jobs, self._tell = data_dir, jobs, tell
        self._cluster = cluster
        own = cluster.conditions if cluster else Conditions.here(jobs=jobs)
        self._conditions = conditions or own
        self._seen: dict[str, Measures] = {}
        self._mixed = mixed
        #: Of each victim: what its answers are known by in the runs, and one run's file for each.
        self._digests: dict[str, dict[str, Path]] | None = None
        self.made = 0  #: runs, since the beginning
        self.failed: dict[str, str] = {}  #: runs that were tried in vain, and why
        self._stack = ExitStack()
        self._places: Places[Any] | None = None

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self._places = None
        self._stack.close()

    def known(self, run: Run) -> Measures | None:
        """Return a run's measures from its file, None while it has not been made.

        Raises:
            InputError: the file holds something else.
        """
        name = run.name
        if name not in self._seen:
            path = self.path(run)
            if not path.is_file():
                return None
            made = read(path)
            if made.run != run:
                raise InputError(f"{path}: holds another run than its name says; move it away")
            self._seen[name] = made.result
        return self._seen[name]

    def missing(self, runs: Iterable[Run]) -> list[Run]:
        """Return those that are neither made nor failed, each once."""
        named = {run.name: run for run in runs}
        return [
            run
            for name, run in named.items()
            if name not in self.failed and self.known(run) is None
        ]

    def path(self, run: Run) -> Path:
        """Return where the run's file is, or will be."""
        return self._runs / f"{run.name}.json"

    def make(self, runs: Sequence[Run]) -> None:
        """Make the runs, also those that are there, or note in ``failed`` why they cannot be.

        Raises:
            InputError: another process is at work in this folder.
        """
        self._make([], lambda: runs, until=math.inf)

    def make_missing(self, needed: Callable[[], Iterable[Run]], *, until: float = math.inf) -> None:
        """Make what is missing of the runs that are needed, the first of them first.

        Args:
            needed: returns what is needed; asked anew after each run, as results may tell more.
            until: when to stop, by ``time.monotonic``. What is under way then is given up, and
                what would take longer by what is known of the speed is not begun.

        Raises:
            InputError: another process is at work in this folder.
        """
        self._make([], lambda: self.missing(needed()), until=until)

    def train(self, victim: Victim) -> None:
        """Train a victim, also one that is there, or note in ``failed`` why it cannot be.

        Raises:
            InputError: another process is at work in this folder.
        """
        self._make([victim], lambda: [], until=math.inf)

    def _make(
        self, first: list[Victim], wanted: Callable[[], Sequence[Run]], *, until: float
    ) -> None:
        begun: set[str] = set()
        alike: dict[Victim, bool] = {}  # the trained ones, and whether runs can go on with them
        pace = _Pace()
        left = 0

        def trained(victim: Victim) -> bool:
            """Return whether runs can begin; all fail of a victim that answers otherwise."""
            if victim not in alike and is_trained(victim, self._victims):
                why = self._unlike(victim)
                alike[victim] = not why
                if why:
                    self._tell(victim.name, 0, len(wanted()), 0, why)
                    self.failed |= {run.name: why for run in wanted() if run.victim == victim}
            return victim in alike

        def following() -> Task | None:
            """Return the first run whose victim is trained, or a victim that one waits for."""
            nonlocal left
            waiting = [run for run in wanted() if run.name not in done]
            left = len(waiting)
            ahead = (run if trained(run.victim) else run.victim for run in waiting)
            for task in (*first, *ahead):
                if task.name in begun or task.name in self.failed:
                    continue
                if time.monotonic() + pace.seconds(task) < until:
                    begun.add(task.name)
                    return task
            return None

        done: set[str] = set()
        lost: set[str] = set()
        for task, answer, seconds in answered(self._started(), following, until):
            why: str = answer.get("error") or answer.get("lost", "")
            again = "lost" in answer and task.name not in lost
            if again:
                lost.add(task.name)
                begun.discard(task.name)
                why += "; it is made again"
            else:
                done.add(task.name)
                if isinstance(task, Victim):
                    why = why or self._unlike(task)
            self._tell(task.name, len(done), len(done) + max(0, left - 1), seconds, why)
            if again:
                continue
            if why:
                hurt = [run.name for run in wanted() if task in (run, run.victim)] or [task.name]
                self.failed |= dict.fromkeys(hurt, why)
            else:
                pace.learn(task, seconds)
                if isinstance(task, Run):
                    self._keep(task, answer, seconds)

    def _unlike(self, victim: Victim) -> str:
        """Return why no run of a trained victim can stand beside those that are there, if so."""
        if self._mixed:
            return ""
        if self._digests is None:
            self._digests = {}
            for path in sorted(self._runs.glob("*.json")):
                with contextlib.suppress(InputError):  # said where that run is looked for
                    self._note(path, read(path))
        try:
            now = answers_digest(victim, self._victims)
        except InputError:
            return ""  # every run says so
        for digest, path in self._digests.get(victim.name, {}).items():
            if digest != now:
                return (
                    f"{self._victims / victim.name}: answers otherwise (digest {now}) than the one "
                    f"that {path.name} was made with ({digest}), so their runs would not compare; "
                    "take its folder from where that was made, or another --out"
                )
        return ""

    def _note(self, path: Path, made: Made) -> None:
        if self._digests is not None and made.victim_digest:
            self._digests.setdefault(made.run.victim.name, {})[made.victim_digest] = path

    def _started(self) -> Places[Any]:
        if self._places is None:
            self._stack.enter_context(alone(self._folder))
            make = self._cluster.places if self._cluster else Processes
            with_what = (self._jobs, self._victims, self._data_dir, self._conditions)
            self._places = make(*with_what)
            self._stack.callback(self._places.stop)
        return self._places

    def refuse_failed(self) -> None:
        """Return if no run was tried in vain.

        Raises:
            RunError: how many were, and why the first.
        """
        if self.failed:
            name, why = next(iter(self.failed.items()))
            raise RunError(f"{len(self.failed)} runs failed, the first of them {name}: {why}")

    def versions(self) -> list[str]:
        """Return what the runs of the folder were made with, each set of versions once."""
        found = set()
        for path in self._runs.glob("*.json"):
            content = json.loads(path.read_text())
            versions = content.get("made_with", content)["versions"]  # once they stood alone
            found.add(", ".join(f"{name} {at}" for name, at in versions.items()))
        return sorted(found)

    def _keep(self, run: Run, answer: dict[str, Any], seconds: float) -> None:
        path = self.path(run)
        content = {
            "run": run.to_json(),
            **answer,
            "seconds": round(seconds, 1),
            "command": f"reverse-sigmoid paper runs/{path.name} --data-dir DIR --out OUT",
        }
        write_json(path, content, indent=1)
        self._note(path, Made(run, answer["result"], *(answer.get(name) for name in WITH)))
        self._seen[run.name] = answer["result"]
        self.made += 1


class _Pace:
    """How long tasks take, by the slowest step of their network so far."""

    def __init__(self) -> None:
        self._of_step: dict[str, float] = {}

    def learn(self, task: Task, seconds: float) -> None:
        """Take note of what a task took."""
        if task.steps:
            network = _network(task)
            of_step = seconds / task.steps
            self._of_step[network] = max(of_step, self._of_step.get(network, 0.0))

    def seconds(self, task: Task) -> float:
        """Return what a task will take, 0 where nothing is known of its network."""
        return task.steps * self._of_step.get(_network(task), 0.0)


def _network(task: Task) -> str:
    return task.architecture if isinstance(task, Victim) else task.substitute
