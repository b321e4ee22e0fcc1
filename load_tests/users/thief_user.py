"""A Locust user that steals: it spends a query budget as an attack plans and keeps the answers."""

import functools
import itertools
import logging
from pathlib import Path
from typing import Any

from locust import constant, task
from locust.env import Environment
from locust.exception import StopUser

from exporters.training import architectures
from load_tests.asking.endpoint import Answers, EndpointError
from load_tests.data.drawn import digest
from load_tests.data.rows import Rows
from load_tests.stealing.attack_record import AttackRecord
from load_tests.stealing.collect import Manner, Plan, collect
from load_tests.stealing.probabilities import as_probabilities
from load_tests.stealing.transfer_set_file import TransferSetFile
from load_tests.users.triton_user import TritonUser
from postprocess.errors import ReverseSigmoidError

_log = logging.getLogger(__name__)
#: Thieves on one worker, and seeds that differ by less than that never draw alike.
THIEVES_PER_WORKER = WORKERS = 1000
#: What is finished or given up in this test. Locust starts a user anew that has stopped, whenever
#: the number of users changes.
_done: set[tuple[Path, AttackRecord]] = set()


class ThiefUser(TritonUser):
    """A thief with a folder and a seed of its own, wherever in a distributed test it runs.

    It stops when its budget is spent. One that was stopped before goes on where it was when it
    is started again, in this test or in a later one, and asks nothing twice.
    """

    abstract = True
    attack: str
    wait_time = constant(1)  # before it tries again what the server has failed on

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.kind = f"thief {self.attack}"
        # Here, not in on_start: Locust creates all users of a batch before it starts one.
        self.number = _numbers(type(self)).take(self)

    @property
    def worker(self) -> int:
        """The number of Locust's worker, 0 where there is none."""
        return max(0, getattr(self.environment.runner, "worker_index", 0))

    @property
    def folder(self) -> Path:
        """Where its transfer set is."""
        name = f"{self.attack}-{self.worker}-{self.number}"
        return self.settings.transfer_sets / name

    @property
    def record(self) -> AttackRecord:
        """What it does."""
        settings = self.settings
        drawn = settings.drawn
        return AttackRecord.of(
            settings,
            settings.data_dir,
            attack=self.attack,
            seed=settings.seed + WORKERS * (self.number + THIEVES_PER_WORKER * self.worker),
            queries=settings.query_budget,
            url=self.host or "",
            architecture=architectures.default(drawn.shape),
            rows=digest(drawn.pool) if settings.query_set else "",
        )

    def plan(self) -> Plan:
        """Return the attack from its start; what is answered already, it will be told."""
        return self.record.plan()

    @task
    def steal(self) -> None:
        """Spend what is left of the budget, and stop."""
        record, folder = self.record, self.folder
        if (folder, record) in _done:
            raise StopUser
        manner = Manner(batch_size=self.settings.thief_batch, pause_s=self.settings.thief_pause_s)
        try:
            record.claim(folder)
            file = TransferSetFile(folder, record.drawn.pool)
            if file.spent >= record.queries:
                _log.warning(
                    "%s: its budget of %d is spent already, so this thief asks nothing; "
                    "for another test give --transfer-sets another folder",
                    folder, record.queries,
                )  # fmt: skip
            else:
                collect(self.plan(), self.ask, manner=manner, file=file)
        except EndpointError as error:
            if error.may_pass:
                return
            self._give_up(error)
        except ReverseSigmoidError as error:
            self._give_up(error)
        else:
            _log.info("%s is whole: %d queries, %d answers lost", folder, file.spent, file.lost)
        _done.add((folder, record))
        raise StopUser

    def ask(self, rows: Rows) -> Answers:
        """Return the answer as probabilities, shape (n, K).

        Raises:
            EndpointError: see ``TritonUser.ask``.
            InputError: the answer holds no finite scores of K >= 2 classes.
        """
        return as_probabilities(super().ask(rows))

    def _give_up(self, error: ReverseSigmoidError) -> None:
        """Have Locust and its master report why, and exit with 1."""
        _log.error("%s", error)
        self.environment.events.user_error.fire(
            user_instance=self, exception=error, tb=error.__traceback__
        )


def forget_what_is_done(**_: Any) -> None:
    """Let thieves look into their folders again; for the start of a test."""
    _done.clear()


class _Numbers:
    """The numbers of a class's living users: each new one gets the lowest that is free."""

    def __init__(self) -> None:
        self._holders: dict[int, TritonUser] = {}

    def take(self, user: TritonUser) -> int:
        for number in itertools.count():
            holder = self._holders.get(number)
            if holder is None or (holder.greenlet is not None and holder.greenlet.dead):
                self._holders[number] = user
                return number
        raise AssertionError


@functools.cache
def _numbers(kind: type[ThiefUser]) -> _Numbers:
    return _Numbers()
