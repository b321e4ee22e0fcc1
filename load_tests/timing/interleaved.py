"""What is compared takes turns, so that all of it shares whatever else the machine does."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from load_tests.timing.closed_loop import Slice

#: Takes seconds, returns what a slice of load that long gave.
Load = Callable[[float], Slice]

#: A slice has room for this many requests of each client, one after another.
SLICE_REQUESTS = 3
#: Slow requests still get this many rounds, if as many are asked for.
LEAST_ROUNDS = 10


def turns(names: Iterable[str], rounds: int, rng: np.random.Generator) -> Iterator[tuple[int, str]]:
    """Yield (round, name): in each round every name once, in an order drawn anew."""
    order = list(names)
    for turn in range(rounds):
        for index in rng.permutation(len(order)):
            yield turn, order[index]


def measure(
    loads: Mapping[str, Load], *, seconds: float, rounds: int, rng: np.random.Generator
) -> dict[str, list[Slice]]:
    """Return each load's slices, one for each round; a round on top warms up.

    Args:
        loads: name to load.
        seconds: of each load, over all rounds. Where requests take long the slices get longer
            and fewer, so that each client sends several in a slice and all takes about the time.
        rounds: at most.
        rng: draws the order within each round.
    """
    warm_up = [loads[name](seconds / rounds) for _, name in turns(loads, 1, rng)]
    # The quickest load's lower quartile: a hiccup while warming up must not cost rounds.
    latency_ms = min(
        (np.quantile(one.latencies_ms, 0.25) for one in warm_up if one.latencies_ms.size),
        default=0.0,
    )
    slice_seconds = float(max(seconds / rounds, SLICE_REQUESTS * latency_ms / 1000))
    count = min(max(round(seconds / slice_seconds), LEAST_ROUNDS), rounds)
    measured: dict[str, list[Slice]] = {name: [] for name in loads}
    for _, name in turns(loads, count, rng):
        measured[name].append(loads[name](slice_seconds))
    return measured


def call_seconds(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    rng: np.random.Generator,
    warm_up: int = 1,
    at_least_s: float = 0.0,
) -> dict[str, list[float]]:
    """Return how long each call took, by round.

    Args:
        calls: name to what is called.
        rounds: that count.
        rng: draws the order within each round.
        warm_up: rounds before them.
        at_least_s: a turn calls until so much time has passed, at least once, and is their mean.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn, name in turns(calls, warm_up + rounds, rng):
        call, count, start = calls[name], 0, time.perf_counter()
        while True:
            call()
            count += 1
            elapsed = time.perf_counter() - start
            if elapsed >= at_least_s:
                break
        if turn >= warm_up:
            seconds[name].append(elapsed / count)
    return seconds
