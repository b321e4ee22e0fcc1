"""Many clients of one attack at once."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor


def crowd(count: int, one: Callable[[int], None]) -> None:
    """Run ``one`` in so many threads, each with its number, and wait for all.

    Raises:
        Exception: the first of theirs.
    """
    with ThreadPoolExecutor(count) as threads:
        for running in [threads.submit(one, number) for number in range(count)]:
            running.result()


def turns(seconds: float) -> Iterator[int]:
    """Yield 0, 1, 2, ... until the time is over."""
    end, turn = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        yield turn
        turn += 1
