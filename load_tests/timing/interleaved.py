"""Loads that take turns, so that all of them share whatever else the machine does."""

from collections.abc import Callable, Mapping

import numpy as np

from load_tests.timing.closed_loop import Slice

#: Takes seconds, returns what a slice of load that long gave.
Load = Callable[[float], Slice]

#: A slice has room for this many requests of each client, one after another.
SLICE_REQUESTS = 3
#: Slow requests still get this many rounds, if as many are asked for.
LEAST_ROUNDS = 10


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
    warm_up = one_round(loads, seconds / rounds, rng)
    # The quickest load's lower quartile: a hiccup while warming up must not cost rounds.
    latency_ms = min(
        (np.quantile(one.latencies_ms, 0.25) for one in warm_up.values() if one.latencies_ms.size),
        default=0.0,
    )
    slice_seconds = float(max(seconds / rounds, SLICE_REQUESTS * latency_ms / 1000))
    count = min(max(round(seconds / slice_seconds), LEAST_ROUNDS), rounds)
    measured = [one_round(loads, slice_seconds, rng) for _ in range(count)]
    return {name: [one[name] for one in measured] for name in loads}


def one_round(
    loads: Mapping[str, Load], seconds: float, rng: np.random.Generator
) -> dict[str, Slice]:
    """Return one slice of each load, taken in an order drawn anew."""
    names = list(loads)
    order = [names[index] for index in rng.permutation(len(names))]
    return {name: loads[name](seconds) for name in order}
