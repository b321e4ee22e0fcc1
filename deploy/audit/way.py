"""One way round the defence, and how an attempt at it ended."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Way:
    """Something to try."""

    name: str
    #: Returns what came back if it got through, None if it was refused.
    attempt: Callable[[], str | None] = field(repr=False)
    wanted: bool = False  #: a call that has to work, so that the audit is not of a dead server


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    way: str
    wanted: bool
    evidence: str | None  #: what came back, None if it was refused

    @property
    def good(self) -> bool:
        """Whether the way is closed, or a wanted call works."""
        return (self.evidence is not None) == self.wanted

    @property
    def verdict(self) -> str:
        """One word for a table."""
        if self.wanted:
            return "works" if self.good else "FAILS"
        return "closed" if self.good else "OPEN"


def walk(ways: list[Way]) -> list[Outcome]:
    """Return what came of every way, tried one after the other."""
    return [Outcome(way.name, way.wanted, way.attempt()) for way in ways]
