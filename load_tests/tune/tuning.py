"""From candidates to one recommended setting, with a training for as few of them as may be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from load_tests.runs.criterion import stops_enough
from load_tests.runs.run import Measures, Run
from load_tests.runs.runner import Runner
from load_tests.tune.candidates import Candidate
from load_tests.tune.search import Search
from postprocess.errors import InputError

CRITERIA = ("paper", "frontier")
#: Agreement of the naive thief at which the frontier is looked for.
LEVELS = (0.9, 0.7, 0.5, 0.3)
#: What stronger thieves make of the answers to Sample; they know beta and gamma.
ADAPTIVE: tuple[dict[str, Any], ...] = ({"recover": "tail"}, {"recover": "analytic"})
#: Settings of the frontier that stronger thieves are shown, at most.
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked of a setting."""

    criterion: str = "paper"  #: one of ``CRITERIA``
    min_cosine: float | None = None  #: least that honest users keep; frontier
    max_stolen: float | None = None  #: most that the naive substitute agrees; frontier
    exhaustive: bool = False  #: train a thief on every candidate


@dataclass(frozen=True)
class Trained:
    """A candidate, and what thieves made of it."""

    candidate: Candidate
    naive: dict[str, float]  #: measures of the substitute of the answers
    adaptive: dict[str, float]  #: agreement of stronger thieves, by name; empty where not tried


class Tuning:
    """One search; every training is a run with a file of its own, made once."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        thief: Run,
        now: dict[str, Any],
        runner: Runner,
        *,
        jobs: int,
        expect: Callable[[int], None],
    ) -> None:
        """Take what is needed; nothing is trained yet.

        Args:
            candidates: to choose among.
            thief: the naive one, before the classifier without a defence.
            now: parameters of the defence that stay as they are.
            runner: makes the runs.
            jobs: trainings at a time.
            expect: told before each training about how many there still are.
        """
        self._candidates, self._thief, self._now = list(candidates), thief, now
        self._runner, self._jobs, self._expect = runner, jobs, expect
        self.labels = thief.but(labels_only=True)

    def run(self, wanted: Wanted) -> Candidate:
        """Train what is needed, and return the recommended setting."""
        self._make([self._thief, self.labels], 8)
        if wanted.exhaustive:
            self._make_each([self.run_of(one) for one in self._candidates])
        if wanted.criterion == "paper":
            self._settle(self._candidates, self._drops_enough)
            chosen = self._chosen_by_paper()
        else:
            chosen = self._chosen_by_limits(wanted)
        shown = self._shown(chosen)
        runs = [self.run_of(one).but(**change) for one in shown for change in ADAPTIVE]
        self._make_each([*runs, self.again(chosen)])
        return chosen

    def run_of(self, candidate: Candidate) -> Run:
        """Return the naive thief before a candidate."""
        setting = {key: value for key, value in candidate.setting.items() if value is not None}
        return self._thief.but(defence={**self._now, **setting})

    def again(self, chosen: Candidate) -> Run:
        """Return the naive thief before the recommended setting, of a seed that chose nothing."""
        seed = self._thief.seed
        return self.run_of(chosen).but(seed=seed - 1 if seed else 1)

    def stolen(self, run: Run) -> dict[str, float]:
        """Return the measures of a run's substitute; it has been made."""
        result = self._runner.known(run)
        if result is None:
            raise KeyError(run.name)
        measures: dict[str, float] = result["stolen"]
        return measures

    @property
    def undefended(self) -> dict[str, float]:
        """What the naive thief makes of true answers."""
        return self.stolen(self._thief)

    def meets(self, wanted: Wanted, chosen: Candidate) -> bool:
        """Return whether a setting stops what was asked for; the recommended one may not."""
        left = self.stolen(self.run_of(chosen))
        if wanted.criterion == "paper":
            return stops_enough(self.undefended["accuracy"], left["accuracy"])
        return wanted.max_stolen is None or left["agreement"] <= wanted.max_stolen

    def trained(self) -> list[Trained]:
        """Return every candidate that a thief was trained on, the highest cosine first."""
        found = []
        for one in self._candidates:
            run = self.run_of(one)
            if self._runner.known(run) is not None:
                changed = {called(change): run.but(**change) for change in ADAPTIVE}
                adaptive = {
                    key: self.stolen(each)["agreement"]
                    for key, each in changed.items()
                    if self._runner.known(each) is not None
                }
                found.append(Trained(one, self.stolen(run), adaptive))
        return sorted(found, key=lambda each: -each.candidate.cosine)

    def frontier(self) -> list[Trained]:
        """Return the trained candidates that no other beats in cosine and against the thief."""
        found: list[Trained] = []
        for one in self.trained():
            if not found or one.naive["agreement"] < found[-1].naive["agreement"]:
                found.append(one)
        return found

    def trainings(self) -> dict[str, int]:
        """Return how many substitutes were trained, and what for."""
        trained = self.trained()
        return {
            "search": 1 + len(trained),
            "labels": 1,
            "stronger": sum(len(one.adaptive) for one in trained),
            "again": 1,
        }

    def _settle(
        self, candidates: Sequence[Candidate], passes: Callable[[Measures], bool]
    ) -> Candidate | None:
        search = Search(candidates, lambda one: self._runner.known(self.run_of(one)), passes)
        while following := search.next(self._jobs):
            self._make([self.run_of(one) for one in following], search.left())
        return search.best()

    def _make(self, runs: Sequence[Run], left: int) -> None:
        missing = self._runner.missing(runs)
        if missing:
            self._expect(left)
            self._runner.make(missing)
            self._runner.refuse_failed()

    def _make_each(self, runs: Sequence[Run]) -> None:
        missing = self._runner.missing(runs)
        for start in range(0, len(missing), self._jobs):
            self._make(missing[start : start + self._jobs], len(missing) - start)

    def _drops_enough(self, result: Measures) -> bool:
        return stops_enough(self.undefended["accuracy"], result["stolen"]["accuracy"])

    def _chosen_by_paper(self) -> Candidate:
        trained = self.trained()
        for one in trained:
            if stops_enough(self.undefended["accuracy"], one.naive["accuracy"]):
                return one.candidate
        return min(trained, key=lambda one: one.naive["accuracy"]).candidate

    def _chosen_by_limits(self, wanted: Wanted) -> Candidate:
        least = wanted.min_cosine or 0.0
        within = [one for one in self._candidates if one.cosine >= least]
        if not within:
            most = max(one.cosine for one in self._candidates)
            raise InputError(f"--min-cosine {least:g}: the candidates keep at most {most:.3f}")
        levels = LEVELS if wanted.max_stolen is None else (wanted.max_stolen,)
        for level in levels:
            self._settle(within, partial(_at_most, level))
        trained = [one for one in self.trained() if one.candidate.cosine >= least]
        if wanted.max_stolen is not None:
            for one in trained:
                if one.naive["agreement"] <= wanted.max_stolen:
                    return one.candidate
        if wanted.min_cosine is not None or wanted.max_stolen is not None:
            return min(trained, key=lambda one: one.naive["agreement"]).candidate
        return max(trained, key=lambda one: one.candidate.cosine - one.naive["agreement"]).candidate

    def _shown(self, chosen: Candidate) -> list[Candidate]:
        """Return the chosen one, and others spread over the frontier."""
        others = [one.candidate for one in self.frontier() if one.candidate != chosen]
        count = min(SHOWN - 1, len(others))
        places = sorted({round(at * (len(others) - 1) / max(1, count - 1)) for at in range(count)})
        return [chosen, *(others[place] for place in places)]


def _at_most(level: float, result: Measures) -> bool:
    return bool(result["stolen"]["agreement"] <= level)


def called(change: dict[str, Any]) -> str:
    """Return what a stronger thief is called."""
    return "-".join(str(value) for value in change.values())
