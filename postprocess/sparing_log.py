"""A log that a client cannot fill: of each kind of event one line a minute."""

import time
from collections.abc import Callable

#: Seconds between two lines of one kind.
EVERY_S = 60.0


class SparingLog:
    """Writes the first line of a kind, and the next once ``EVERY_S`` have passed."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._next: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def __call__(self, kind: str, text: str) -> None:
        """Write a line, or count it; the next one of its kind says how many were left out."""
        now = time.monotonic()
        if now < self._next.get(kind, now):
            self._held_back[kind] = self._held_back.get(kind, 0) + 1
            return
        self._next[kind] = now + EVERY_S
        left_out = self._held_back.pop(kind, 0)
        self._write(f"{text} (and {left_out} times before, not logged)" if left_out else text)
