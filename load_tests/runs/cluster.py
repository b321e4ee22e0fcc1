"""Places on other machines: the workers of a Dask scheduler, each of which does a task at a time.

Nothing is assumed of them but this package in the same version: the files of victims and data sets
travel, once to each worker, and a victim that was trained there comes back.
"""

import asyncio
import contextlib
import ipaddress
import logging
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporters.training import datasets
from load_tests.asking.address import address
from load_tests.runs import victims
from load_tests.runs.conditions import Conditions
from load_tests.runs.processes import Reply, Task, asked
from load_tests.runs.remote import DATA, VICTIMS, Session, code
from load_tests.runs.run import Run, Victim
from postprocess.errors import InputError, ReverseSigmoidError

#: Bytes of a file that are sent at a time; Dask warns of more than 10 MB.
_PART = 4 << 20
#: Seconds for the scheduler to answer, and for a first worker to come.
_CONNECT_S, _WORKERS_S = 10, 60
#: Seconds between two looks at whether a task's worker is still there.
_LOOK_S = 1.0


class ClusterError(ReverseSigmoidError):
    """The scheduler or all of its workers were lost; runs that had finished are kept."""


def warning(where: str) -> str:
    """Return what to say of a scheduler's address before it is used, if anything.

    Raises:
        InputError: it is no such address.
    """
    protocol, _, rest = where.partition("://")
    if protocol not in ("tcp", "tls"):
        raise InputError(f"--scheduler: expected tcp://HOST:PORT or tls://HOST:PORT, got {where!r}")
    host = address(rest, "--scheduler").host
    with contextlib.suppress(ValueError):  # a name
        if ipaddress.ip_address(host).is_loopback:
            return ""
    if protocol == "tls" or host == "localhost":
        return ""
    return (
        f"{where}: without TLS whoever reaches the scheduler has its workers and this command run "
        "any code; use tls://, or a network that nobody else is on"
    )


@contextmanager
def connected(where: str, say: Callable[[str], None]) -> "Iterator[Cluster | None]":
    """Yield a connection to the scheduler, None where no address is given.

    Args:
        where: its address, or empty.
        say: takes one line for a person.

    Raises:
        InputError: it is no address, nobody answers there, or there are no workers.
    """
    if not where:
        yield None
        return
    if said := warning(where):
        say(f"WARNING: {said}")
    with Cluster(where) as found:
        say(f"{found.jobs} workers, a run of {found.conditions.threads} threads each")
        yield found


class Cluster:
    """A connection to a scheduler, within its context."""

    def __init__(self, where: str) -> None:
        """Take the scheduler's address; nothing is connected yet."""
        self.where = where

    def __enter__(self) -> "Cluster":
        """Connect.

        Raises:
            InputError: nobody answers, or there are no workers.
        """
        from distributed import Client, Security

        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what is lost is said by us
        if self.where.startswith("tls") and not Security().get_connection_args("client").get(
            "ssl_context"
        ):
            raise InputError(
                f"--scheduler {self.where}: needs Dask's certificates of a client: "
                "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ...__CLIENT__CERT and ...__CLIENT__KEY"
            )
        try:
            self.client = Client(self.where, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            raise InputError(f"--scheduler {self.where}: {str(error) or 'no answer'}") from None
        try:
            self.client.wait_for_workers(1, timeout=_WORKERS_S)
        except asyncio.TimeoutError:
            self.client.close()
            raise InputError(
                f"--scheduler {self.where}: has no workers; start some, on any machine: "
                f"dask worker {self.where}"
            ) from None
        except OSError as error:  # lost again
            self.client.close()
            raise InputError(f"--scheduler {self.where}: {error}") from None
        self._threads = self.threads()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):  # nothing is left to be lost
            self.client.close(timeout=_CONNECT_S)

    @property
    def jobs(self) -> int:
        """How many workers there were at first."""
        return len(self._threads)

    @property
    def conditions(self) -> Conditions:
        """This process's own, but with the threads that every worker has."""
        return replace(Conditions.here(), threads=min(self._threads.values()))

    def threads(self) -> dict[str, int]:
        """Return the threads of each worker, by its address.

        Raises:
            ClusterError: the scheduler was lost.
        """
        try:
            if self.client.status == "running":
                found: dict[str, int] = dict(self.client.nthreads())
                return found
        except (OSError, RuntimeError, ValueError):
            pass
        raise ClusterError(
            f"--scheduler {self.where}: was lost; what had finished is kept, and the same command "
            "goes on once it is back"
        )

    def places(
        self, jobs: int, folder: Path, data_dir: Path | None, conditions: Conditions
    ) -> "Workers":
        """Return at most so many workers, for the victims of a folder."""
        session = Session(
            name=f"reverse-sigmoid-{uuid.uuid4().hex}",
            conditions=conditions,
            has_data=data_dir is not None,
        )
        return Workers(self, jobs, folder, data_dir, session)


class _LostError(Exception):
    """A worker went, or the command ends."""


class Workers:
    """Workers of a cluster: the place of a task is an address."""

    def __init__(
        self,
        cluster: Cluster,
        jobs: int,
        folder: Path,
        data_dir: Path | None,
        session: Session,
    ) -> None:
        """Take what they need; see ``Cluster.places``."""
        self._cluster, self._client, self._jobs = cluster, cluster.client, jobs
        self._folder, self._data_dir = folder, data_dir
        self._session = session
        self._code = code()
        self._there: set[str] = set()
        self._known: set[str] = set()
        self._sent: dict[str, set[str]] = defaultdict(set)
        self._stopped = threading.Event()

    def free(self, busy: Collection[str]) -> list[str]:
        """Return workers that do nothing, as many as may be at work beside the busy ones.

        Raises:
            ClusterError: the scheduler or all workers were lost.
            InputError: a worker has other code.
        """
        self._there = set(self._cluster.threads())
        for place in self._there - self._known:
            self._refuse_other_code(place)
        self._known |= self._there
        if not self._there and not busy:
            raise ClusterError(
                f"--scheduler {self._cluster.where}: all its workers were lost; what had finished "
                f"is kept. Start some, on any machine: dask worker {self._cluster.where}; then the "
                "same command goes on"
            )
        return sorted(self._there - set(busy))[: max(0, self._jobs - len(busy))]

    def ask(self, place: str, task: Task) -> Reply:
        """Return a worker's answer to a task, once it has the files."""
        try:
            self._send(place, task)
            answer: Reply = self._call(place, self._session_for(task).answer, asked(task))
        except _LostError:
            return {"lost": f"its worker {place} was lost"}
        except ReverseSigmoidError as error:
            return {"error": str(error)}
        except Exception as error:  # whatever was raised there
            return {
                "error": f"worker {place}: {type(error).__name__}: {' '.join(str(error).split())}"
            }
        if "lost" in answer:
            return {"lost": f"worker {place}: {answer['lost']} there"}
        if "files" in answer:
            victims.put(_victim(task), self._folder, answer.pop("files"))
        return answer

    def stop(self) -> None:
        """Let nobody wait any longer: what is under way at the workers ends with its task."""
        self._stopped.set()
        with contextlib.suppress(Exception):  # they end by themselves once nobody waits
            self._client.run(self._session.end, on_error="ignore")

    def _session_for(self, task: Task) -> Session:
        has_data = self._session.has_data or bool(self._data(_victim(task)))
        return replace(self._session, has_data=has_data)

    def _data(self, victim: Victim) -> list[Path]:
        """Return the files of a victim's data set that a worker needs."""
        if (self._folder / victim.name / victims.ROWS).is_file():
            return []
        return datasets.files(victim.data, self._data_dir)

    def _send(self, place: str, task: Task) -> None:
        victim = _victim(task)
        wanted = {f"{DATA}/{path.name}": path for path in self._data(victim)}
        if isinstance(task, Run):
            there = victims.files(victim, self._folder)
            wanted |= {f"{VICTIMS}/{victim.name}/{path.name}": path for path in there}
        for name in wanted.keys() - self._sent[place]:
            with wanted[name].open("rb") as file:
                start = 0
                while part := file.read(_PART):
                    self._call(place, self._session_for(task).keep, name, start, part)
                    start += len(part)
            self._sent[place].add(name)

    def _call(self, place: str, function: Callable[..., Any], *given: Any) -> Any:
        """Return what a function returns on a worker.

        Raises:
            _LostError: the worker is there no longer, or nobody waits any more.
        """
        from distributed import CancelledError

        future = self._client.submit(function, *given, workers=[place], pure=False)
        try:
            while not future.done():
                if place not in self._there or self._stopped.is_set():
                    raise _LostError
                with contextlib.suppress(asyncio.TimeoutError):
                    future.exception(timeout=_LOOK_S)
            return future.result()
        except CancelledError:  # the scheduler was lost
            raise _LostError from None
        finally:
            future.cancel()

    def _refuse_other_code(self, place: str) -> None:
        found = self._client.run(code, workers=[place], on_error="return").get(place)
        if found != self._code and not isinstance(found, OSError):  # it went again
            why = found if isinstance(found, Exception) else "its code differs"
            raise InputError(
                f"worker {place}: expected this version of triton-reverse-sigmoid ({why}); install "
                "it there, and start the worker anew"
            )


def _victim(task: Task) -> Victim:
    return task.victim if isinstance(task, Run) else task
