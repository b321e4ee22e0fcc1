"""One way round the defence, and how an attempt at it ended."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: How long a walk waits, all in all, for a rate that lets its key ask again.
PATIENCE_S = 15.0


class SpentError(Exception):
    """The key's budget or rate is spent, so that nobody sees whether a way is open."""


@dataclass(frozen=True)
class Way:
    """Something to try."""

    name: str
    #: Returns what came back if it got through, None if it was refused; may raise SpentError.
    attempt: Callable[[], str | None] = field(repr=False)
    wanted: bool = False  #: a call that has to work, so that the audit is not of a dead server


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    way: str
    wanted: bool
    evidence: str | None  #: what came back, None if it was refused
    spent: bool = False  #: it was not tried, for the key may not ask any more

    @property
    def good(self) -> bool:
        """Whether the way is closed, or a wanted call works."""
        return (self.evidence is not None) == self.wanted and not self.spent

    @property
    def verdict(self) -> str:
        """One word for a table."""
        if self.spent:
            return "SPENT"
        if self.wanted:
            return "works" if self.good else "FAILS"
        return "closed" if self.good else "OPEN"


def walk(ways: list[Way]) -> list[Outcome]:
    """Return what came of every way, tried one after the other."""
    outcomes, until = [], 0.0
    for way in ways:
        while True:
            try:
                outcomes.append(Outcome(way.name, way.wanted, way.attempt()))
            except SpentError:
                until = until or time.monotonic() + PATIENCE_S
                if time.monotonic() < until:
                    time.sleep(0.5)
                    continue
                outcomes.append(Outcome(way.name, way.wanted, None, spent=True))
            break
    return outcomes
