"""Latency of several models, in one interleaved run so that they share every disturbance."""

import itertools

import numpy as np

from exporters.training.datasets import Images
from load_tests.asking.endpoint import Query
from load_tests.timing.interleaved import call_seconds


def interleaved_latency_ms(
    queries: dict[str, Query], images: Images, *, rounds: int, rng: np.random.Generator
) -> dict[str, list[float]]:
    """Return each query's latencies in milliseconds, ``rounds`` of each.

    Every round asks each of the queries once about the same single image, in an order drawn
    anew. One caller, closed loop, batch 1; the first tenth of rounds on top warms up.

    Args:
        queries: name to query.
        images: to ask about in turn, shape (n, height, width, channels).
        rounds: measured requests per query.
        rng: draws the order within each round.
    """
    calls = {
        name: map(query, itertools.cycle(images[:, None])).__next__
        for name, query in queries.items()
    }
    seconds = call_seconds(calls, rounds=rounds, rng=rng, warm_up=rounds // 10)
    return {name: [1000 * one for one in each] for name, each in seconds.items()}
