"""Normal users and thieves of one endpoint, for Locust.

    locust -f load_tests/locustfile.py --host 127.0.0.1:8001 -u 22 --sample-thieves 2

What they are made of, their options and load shapes are in ``load_tests.users``.
"""

import contextlib
import itertools
import logging
import sys
from typing import Any

import gevent
import numpy as np
from locust import events, runners, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from load_tests.asking.endpoint import EndpointError
from load_tests.stealing.attacks.base import Means
from load_tests.stealing.attacks.registry import ATTACKS
from load_tests.stealing.collect import Plan
from load_tests.users import load_shapes
from load_tests.users.load_shapes import BurstShape, RampShape, SteadyShape
from load_tests.users.options import LoadSettings, add_options
from load_tests.users.plan_process import plan_elsewhere
from load_tests.users.thief_user import ThiefUser, forget_what_is_done
from load_tests.users.triton_user import TritonUser
from postprocess.errors import InputError, ReverseSigmoidError

__all__ = ["BurstShape", "RampShape", "SteadyShape"]  # for Locust's class picker

_log = logging.getLogger(__name__)
#: Seconds without a word from a worker after which its master goes on without it, and ends the test
#: if it was the last. Locust's 3 pass on a busy machine while users start.
runners.HEARTBEAT_LIVENESS = 30


class NormalUser(TritonUser):
    """Asks about a few real rows of the test set, and thinks before it asks again."""

    weight = 10
    kind = "normal"
    _born = itertools.count()

    def on_start(self) -> None:
        """Find its rows, and draws of its own."""
        settings = self.settings
        self._rows = settings.drawn.test
        worker = max(0, getattr(self.environment.runner, "worker_index", 0))
        self._rng = np.random.default_rng([settings.seed, worker, next(self._born)])

    def wait_time(self) -> float:
        """Return half to one and a half times the think time, in seconds."""
        return float(self.settings.think_time_s * self._rng.uniform(0.5, 1.5))

    @task
    def classify(self) -> None:
        """Ask once; that it failed stands in the statistics."""
        count = self._rng.integers(1, self.settings.normal_batch + 1)
        chosen = self._rng.integers(len(self._rows), size=count)
        try:
            self.ask(self._rows[chosen])
        except EndpointError as error:
            _log.debug("%s", error)


class SampleThief(ThiefUser):
    """Asks about real images of the victim's kind, as fast as it is answered."""

    attack = "sample"


class RandomThief(ThiefUser):
    """Asks about noise."""

    attack = "random"


class JacobianThief(ThiefUser):
    """Asks about images made with a substitute, which it trains in a process of its own."""

    attack = "jacobian"

    def plan(self) -> Plan:
        """Return the attack, run in a process of its own."""
        return plan_elsewhere(self.folder)


THIEVES: list[type[ThiefUser]] = [SampleThief, RandomThief, JacobianThief]
#: Weight and fixed count of each, while an option has the say.
_own_counts: dict[type[ThiefUser], tuple[float, int]] = {}


def load_early(parser: LocustArgumentParser, **_: Any) -> None:
    """Load the rows and the modules of a request before a worker connects: no user waits for them.

    What is wrong with the options is said later.
    """
    import tritonclient.grpc  # noqa: F401, without a connection, which no fork may inherit

    options, _rest = parser.parse_known_args()
    with contextlib.suppress(ReverseSigmoidError):
        LoadSettings.of(options).drawn  # noqa: B018, it is kept


def prepare(environment: Environment, **_: Any) -> None:
    """Choose the load shape, and refuse at once what a test could not start with."""
    load_shapes.choose(environment)
    options = environment.parsed_options
    # Its master's options are to come.
    distant = isinstance(environment.runner, runners.WorkerRunner)
    try:
        if not distant and options is not None and options.headless:
            _check(environment)
    except ReverseSigmoidError as error:
        print(f"locust: {error}", file=sys.stderr)
        sys.exit(2)


def start(environment: Environment, **_: Any) -> None:
    """Load the rows before the users come, and set how many of them are thieves."""
    try:
        settings = _check(environment)
    except ReverseSigmoidError as error:
        _log.error("%s", error)
        runner, options = environment.runner, environment.parsed_options
        if runner is not None:
            gevent.spawn(runner.quit if options and options.headless else runner.stop)
        return
    unable = _unable(settings)
    for thief in THIEVES:
        _own_counts[thief] = thief.weight, thief.fixed_count
        if settings.thieves is not None:
            thief.weight, thief.fixed_count = 0, settings.thieves[thief.attack]
        elif thief in unable:
            _log.warning("%s is left out: it %s", thief.__name__, unable[thief])
            thief.weight, thief.fixed_count = 0, 0


def stop(**_: Any) -> None:
    """Give the thieves' classes back what Locust's own options and its web page set."""
    for thief, own in _own_counts.items():
        thief.weight, thief.fixed_count = own
    _own_counts.clear()


def _check(environment: Environment) -> LoadSettings:
    settings = LoadSettings.of(environment.parsed_options)
    if not environment.host:
        raise InputError("--host: expected HOST:PORT of Triton's gRPC endpoint")
    certificates = settings.access.tls_ca
    if certificates is not None and not certificates.is_file():
        raise InputError(f"--tls-ca {certificates}: no such file")
    if settings.query_set or not isinstance(environment.runner, runners.MasterRunner):
        for thief, why in _unable(settings).items():
            if settings.thieves is not None and settings.thieves[thief.attack]:
                raise InputError(f"--{thief.attack}-thieves: {thief.__name__} {why}")
    return settings


def _unable(settings: LoadSettings) -> dict[type[ThiefUser], str]:
    """Return for each thief that cannot ask with such rows why; loads the rows."""
    means = Means(pool=settings.drawn.pool, budget=1, rng=np.random.default_rng())
    found = {thief: ATTACKS[thief.attack].hindrance(means) for thief in THIEVES}
    return {thief: why for thief, why in found.items() if why}


events.init_command_line_parser.add_listener(add_options)
events.init_command_line_parser.add_listener(load_early)
events.init.add_listener(prepare)
events.test_start.add_listener(forget_what_is_done)
events.test_start.add_listener(start)
events.test_stop.add_listener(stop)
