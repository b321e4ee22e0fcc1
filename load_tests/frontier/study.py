"""Which answers, thieves, budgets and seeds are compared, as runs.

All thieves are run on pilot seeds, with every budget, and nothing is told of them. The best of each
kind of answers, and of labels, is run on the seeds that are told of: the best of many on the same
seed would be best by luck too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Any

from load_tests.runs.criterion import PILOT
from load_tests.runs.run import HELD_OUT, Known, Run, Victim
from load_tests.stealing.thief import DECODING, OF_ANSWERS, OF_LABELS, Change

#: Queries for each class; with fewer, what a thief gets is luck.
BUDGETS = (5, 10, 20, 40)
#: Training batches of 64: so many that queries are short, and not steps.
STEPS = 3000

#: Pilot seeds beside the first, from here on.
MORE_PILOTS = 1000

#: Thieves of a deceptive answer.
UNDOING: tuple[Change, ...] = (
    {"recover": "mixture", "loss": "logits"},
    {"recover": "tail"},
    {"recover": "analytic", "loss": "logits"},
    {"recover": "analytic", "learn": "consistency"},
    {"recover": "mixture", "loss": "logits", "learn": "consistency"},
    {"recover": "bayes"},
    {},
    {"loss": "logits"},
)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of answers."""

    title: str
    answers: str = ""  #: see ``load_tests.runs.answers``; what the defence says where it is empty
    defence: tuple[tuple[str, Any], ...] = ()  #: its parameters
    thieves: tuple[Change, ...] = OF_ANSWERS  #: the most telling first


def deceptive(title: str, **defence: Any) -> Kind:
    """Return the answers of a defence, before thieves who undo it, with its parameters."""
    return Kind(title=title, defence=tuple(defence.items()), thieves=UNDOING)


SHIPPED_SETTING = {"defense": "reverse_sigmoid", "beta": 1.5, "gamma": 0.2, "margin": 0.01}
#: The bar is set by the first two.
KINDS = (
    Kind(title="raw probabilities"),
    Kind(title="calibrated, 10 levels", answers="calibrated 10", thieves=DECODING),
    Kind(title="rounded to 1 decimal", answers="rounded 1", thieves=DECODING),
    Kind(title="rounded to 2 decimals", answers="rounded 2", thieves=DECODING),
    deceptive("Reverse Sigmoid", **SHIPPED_SETTING),
    Kind(
        title="Reverse Sigmoid, learnt as it is",
        defence=tuple(SHIPPED_SETTING.items()),
        thieves=({}, {"loss": "logits"}),
    ),
    Kind(
        title="decoy",
        defence=(("defense", "decoy"),),
        thieves=({}, {"loss": "logits"}, {"recover": "tail"}),
    ),
    Kind(title="top-1 probability alone", answers="top1", thieves=DECODING),
    Kind(title="calibrated, 4 levels", answers="calibrated 4", thieves=DECODING),
    Kind(title="calibrated, 1 level", answers="calibrated 1", thieves=DECODING),
    deceptive("Reverse Sigmoid, 3 decimals", **SHIPPED_SETTING, decimals=3),
)
#: How many of them are asked about with every budget; the others with the first one alone.
DECIDING = 4
LABELS = Kind(title="labels alone", answers="labels", thieves=OF_LABELS)


@dataclass(frozen=True, kw_only=True)
class Study:
    """One data set; every seed has a victim, a hold-off and thieves of its own."""

    data: str
    classes: int
    pool: int  #: rows that a thief can ask about
    architecture: str = "mlp"
    victim_steps: int = 600
    steps: int = STEPS
    seeds: int = 5  #: that are told of
    pilot_seeds: int = 1  #: that choose; more, where few rows judge
    budgets: tuple[int, ...] = BUDGETS
    thieves: int = 99  #: of each kind of answers that are tried, at most
    kinds: tuple[Kind, ...] = KINDS
    recorded: Victim | None = None  #: a victim that is there already, for all seeds

    def queries(self, a_class: int) -> int:
        """Return a budget's queries, at most all rows."""
        return min(a_class * self.classes, self.pool)

    def asked(self, a_class: int) -> tuple[Kind, ...]:
        """Return the kinds of answers that are asked for with a budget, labels alone first."""
        most = None if a_class == self.budgets[0] else DECIDING
        return (LABELS, *self.kinds[:most])

    def run(self, kind: Kind, a_class: int, seed: int, thief: Change) -> Run:
        """Return one thief's run."""
        victim = Victim(
            data=self.data, architecture=self.architecture, steps=self.victim_steps, seed=seed
        )
        return Run(
            victim=self.recorded or victim,
            defence=dict(kind.defence),
            answers=kind.answers,
            held_out=HELD_OUT,
            substitute=self.architecture,
            queries=self.queries(a_class),
            steps=self.steps,
            seed=seed,
        ).but(**thief)

    def pilots(self, kind: Kind, a_class: int) -> list[list[Run]]:
        """Return the runs that choose among the thieves of a kind of answers: those of each."""
        seeds = (PILOT, *range(MORE_PILOTS, MORE_PILOTS + self.pilot_seeds - 1))
        tried = kind.thieves[: self.thieves]
        return [[self.run(kind, a_class, seed, one) for seed in seeds] for one in tried]

    def chosen(self, kind: Kind, a_class: int, known: Known) -> Change | None:
        """Return the thief that was best on the pilot seeds; None while one has not been run."""
        stolen = []
        for runs in self.pilots(kind, a_class):
            results = [result for result in map(known, runs) if result is not None]
            if len(results) < len(runs):
                return None
            stolen.append(fmean(result["stolen"]["agreement"] for result in results))
        return kind.thieves[stolen.index(max(stolen))]

    @property
    def told(self) -> range:
        """The seeds that are told of."""
        return range(PILOT + 1, PILOT + 1 + self.seeds)

    def best(self, kind: Kind, a_class: int, seed: int, known: Known) -> Run | None:
        """Return the run of the chosen thief; None while there is none."""
        thief = self.chosen(kind, a_class, known)
        return None if thief is None else self.run(kind, a_class, seed, thief)

    def needed(self, known: Known) -> Iterator[Run]:
        """Yield the runs, kind by kind; of one whose pilot is not whole yet the pilot alone."""
        for a_class in self.budgets:
            for kind in self.asked(a_class):
                yield from chain.from_iterable(self.pilots(kind, a_class))
                for seed in self.told:
                    run = self.best(kind, a_class, seed, known)
                    if run is not None:
                        yield run
