"""Which candidate to train a thief on next.

Every training settles many candidates. One that passes makes all of a lower cosine worthless,
and one that fails takes with it all that leave the top class a larger lead, from which
substitutes learn. So the trained ones are taken from the middle of what is open, and what is
open is halved each time, by a whole training.

That a larger lead defends worse is certain only where beta alone differs. So at the end, of
the ``CHALLENGERS`` gammas that come nearest, the strongest candidate that would still be better
is trained too, unless that is settled.
"""

from collections.abc import Callable, Sequence
from typing import Any

from load_tests.runs.run import Measures
from load_tests.tune.candidates import Candidate

CHALLENGERS = 2


class Search:
    """The candidate of the highest cosine that passes, by few trainings."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        known: Callable[[Candidate], Measures | None],
        passes: Callable[[Measures], bool],
    ) -> None:
        """Take the candidates, where results are looked up, and what is asked of one."""
        self._candidates, self._known, self._passes = list(candidates), known, passes

    def best(self) -> Candidate | None:
        """Return the passing candidate of the highest cosine so far, None if none has passed."""
        passing = [one for one, passed in self._trained() if passed]
        return max(passing, key=lambda one: one.cosine, default=None)

    def next(self, count: int) -> list[Candidate]:
        """Return which candidates to train now, at most ``count``; none where all is settled."""
        done = {one for one, _ in self._trained()}
        failed, front = self._failed(), self._front()
        if front:
            share = len(front) / (count + 1)
            places = {int(share * place) for place in range(1, count + 1)}
            return [front[min(place, len(front) - 1)] for place in sorted(places)]
        return [
            one
            for one in self._challengers()
            if one not in done and not any(one.weaker_than(other) for other in failed)
        ][:count]

    def left(self) -> int:
        """Return about how many trainings it will still take."""
        return len(self._front()).bit_length() + CHALLENGERS if self.next(1) else 0

    def _better(self) -> list[Candidate]:
        """Return the candidates that keep more than the best so far."""
        best = self.best()
        return [one for one in self._candidates if best is None or one.cosine > best.cosine]

    def _failed(self) -> list[Candidate]:
        return [one for one, passed in self._trained() if not passed]

    def _front(self) -> list[Candidate]:
        """Return those still open that no other beats in cosine and in lead, the least lead first.

        What was trained is not open: it failed, or is the best or worse.
        """
        failed, front = self._failed(), list[Candidate]()
        for one in sorted(self._better(), key=lambda one: (one.lead, -one.cosine)):
            beaten = front and one.cosine <= front[-1].cosine
            if not beaten and not any(one.lead >= other.lead for other in failed):
                front.append(one)
        return front

    def _challengers(self) -> list[Candidate]:
        """Return the strongest of the better candidates, of each of the likeliest gammas."""
        strongest: dict[Any, Candidate] = {}
        for one in self._better():
            kind = (one.gamma, one.margin, one.decimals)
            if kind not in strongest or strongest[kind].weaker_than(one):
                strongest[kind] = one
        return sorted(strongest.values(), key=lambda one: one.lead)[:CHALLENGERS]

    def _trained(self) -> list[tuple[Candidate, bool]]:
        results = [(one, self._known(one)) for one in self._candidates]
        return [(one, self._passes(result)) for one, result in results if result is not None]
