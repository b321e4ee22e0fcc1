"""Latency of several models, in one interleaved run so that they share every disturbance."""

import time

import numpy as np

from exporters.datasets import Images
from load_tests.endpoint import Query


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
    latencies: dict[str, list[float]] = {name: [] for name in queries}
    names = list(queries)
    warm_up = rounds // 10
    for turn in range(warm_up + rounds):
        image = images[turn % len(images)][None]
        for index in rng.permutation(len(names)):
            name = names[index]
            start = time.perf_counter()
            queries[name](image)
            elapsed_ms = (time.perf_counter() - start) * 1000
            if turn >= warm_up:
                latencies[name].append(elapsed_ms)
    return latencies
