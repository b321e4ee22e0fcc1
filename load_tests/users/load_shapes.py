"""How the number of users changes over a test: steady, ramp, burst.

``-u`` is the highest number, ``--run-time`` the length of the test. Without a run time a test
goes on until it is stopped.
"""

from typing import Any

from locust import LoadTestShape
from locust.env import Environment

#: A ramp's length where there is no run time.
RAMP_S = 60.0
#: A burst comes this often, lasts so long, and this share of users is there between bursts.
BURST_EVERY_S = 30.0
BURST_S = 10.0
CALM_SHARE = 0.2
#: Locust warns above it.
_HIGHEST_RATE = 100.0


class ClientShape(LoadTestShape):
    """What the shapes share: they read Locust's own -u, -r and --run-time."""

    abstract = True
    use_common_options = True

    def users(self, now_s: float, highest: int, length_s: float | None) -> int:
        """Return how many users there are, so many seconds after the start."""
        raise NotImplementedError

    def rate(self, highest: int, spawn_rate: float) -> float:
        """Return how many users are started or stopped per second: all at once."""
        return min(_HIGHEST_RATE, max(1.0, highest))

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there should be now and the rate of change, None at the end."""
        options = self._options()
        length_s = float(options.run_time) if options.run_time else None
        now_s = self.get_run_time()  # type: ignore[no-untyped-call]
        if length_s is not None and now_s >= length_s:
            return None
        highest = int(options.num_users or 1)
        count = self.users(now_s, highest, length_s)
        return count, self.rate(highest, float(options.spawn_rate or 1))

    def _options(self) -> Any:
        assert self.runner is not None  # noqa: S101, Locust sets it
        return self.runner.environment.parsed_options


class SteadyShape(ClientShape):
    """All users from the start, started at rate -r."""

    abstract = False

    def users(self, now_s: float, highest: int, length_s: float | None) -> int:
        """Return the highest number, always."""
        return highest

    def rate(self, highest: int, spawn_rate: float) -> float:
        """Return Locust's -r."""
        return spawn_rate


class RampShape(ClientShape):
    """From one user to all of them, evenly over the run time."""

    abstract = False

    def users(self, now_s: float, highest: int, length_s: float | None) -> int:
        """Return a number that rises evenly; without a run time, for a minute."""
        share = min(1.0, now_s / (length_s or RAMP_S))
        return 1 + round((highest - 1) * share)


class BurstShape(ClientShape):
    """A fifth of the users, and every half minute all of them for ten seconds."""

    abstract = False

    def users(self, now_s: float, highest: int, length_s: float | None) -> int:
        """Return the highest number within a burst; each half minute ends with one."""
        if now_s % BURST_EVERY_S >= BURST_EVERY_S - BURST_S:
            return highest
        return max(1, round(highest * CALM_SHARE))


SHAPES: dict[str, type[ClientShape]] = {
    "steady": SteadyShape,
    "ramp": RampShape,
    "burst": BurstShape,
}


def choose(environment: Environment) -> None:
    """Make ``--shape`` the environment's; without it Locust's own -u and -r hold.

    Of the shapes of a locustfile, Locust would take the first.
    """
    name = getattr(environment.parsed_options, "shape", None)
    environment.shape_class = SHAPES[name]() if name else None
    if environment.shape_class is not None:
        environment.shape_class.runner = environment.runner
