"""Attacks on one endpoint, in a folder that remembers all that was paid for and all results.

| in the folder | holds |
| --- | --- |
| ``campaign.json`` | the settings; a later call with others is refused |
| ``<attack>/`` | a transfer set, see ``transfer_set_file``, and its ``attack_record`` |
| ``<attack>-unprotected/`` | the same, of the victim itself |
| ``reference.npz`` | the answers to the test set, by which thieves are judged |
| ``results/<thief>-<queries>.json`` | what that thief stole so, and the threads it trained with |
"""

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from exporters.files.alone import alone
from exporters.files.atomic_file import write_arrays, write_json
from exporters.pipeline import Stage
from load_tests.asking.deferred_signals import deferred_signals
from load_tests.asking.endpoint import Answers, Query, ask
from load_tests.data.drawn import Drawn
from load_tests.data.rows import Rows, features
from load_tests.stealing import attack_record, known_table, same_answers
from load_tests.stealing.attack_record import AttackRecord
from load_tests.stealing.attacks.base import PHOTOS, Means
from load_tests.stealing.attacks.registry import ATTACKS
from load_tests.stealing.claim import claim, read
from load_tests.stealing.collect import Manner, Plan, collect
from load_tests.stealing.crew import ALONE, Place, Share, crew
from load_tests.stealing.substitute import Recipe
from load_tests.stealing.theft import Scene, Theft, judge
from load_tests.stealing.thief import Thief
from load_tests.stealing.transfer_set import TransferSet
from load_tests.stealing.transfer_set_file import TransferSetFile
from postprocess.errors import InputError
from postprocess.parameters import Parameters

NAME = "campaign.json"
REFERENCE = "reference.npz"
#: Of a result, what the report needs.
_TOLD = {
    *("name", "queries", "outsider", "attack", "loss", "labels_only", "recover", "unprotected"),
    *("agreement", "cosine", "mae", "kl_nats_from_victim", "kl_nats_to_victim"),
}


@dataclass(frozen=True, kw_only=True)
class CampaignSettings:
    """What decides the results of a campaign; written to ``campaign.json``."""

    url: str  #: HOST:PORT, or what else the endpoint is known by
    model: str  #: the endpoint's model
    victim: str  #: the model without a defence, where it can be asked; else empty
    data: str  #: the data set, see ``exporters.training.datasets``
    query_set: str = ""  #: file of a query set, in the data set's place
    test_set: str = ""  #: of another one, to judge by
    rows: str = ""  #: the hash of a query set's pool
    test_rows: str = ""  #: and of what it is judged by
    output: str = ""  #: of the scores, where the endpoint has several
    queries: int  #: the query budget of each attack, in rows
    split_seed: int = 0  #: of the hold-off; the exporter's seed
    seed: int = 0  #: of the attacks and the substitutes
    architecture: str = "simple"  #: of the substitutes
    steps: int = 600  #: training batches of 64 for each substitute
    others: str = PHOTOS  #: the other data set of Knockoff
    beta: float  #: what adversaries take the defence to be
    gamma: float
    margin: float
    calibration: str = ""  #: file of the table of calibrated answers that they know in their place
    table: str = ""  #: what it is called for its contents


class Campaign:
    """The attacks of one folder."""

    def __init__(
        self,
        out: Path,
        settings: CampaignSettings,
        *,
        drawn: Drawn,
        protected: Query,
        victim: Query | None,
        manner: Manner,
        data_dir: Path | None = None,
        taken: dict[str, TransferSet] | None = None,
    ) -> None:
        """Take up the folder, or start it.

        Args:
            out: the folder.
            settings: what decides the results.
            drawn: the victim's kind of data, as the settings name it.
            protected: the endpoint under attack, from rows to probabilities.
            victim: the same without a defence, where it can be asked.
            manner: how requests are sent.
            data_dir: where the other data set of Knockoff is.
            taken: transfer sets that are there already, by the attack that made them.

        Raises:
            InputError: the folder holds a campaign with other settings, or other files.
        """
        self.out, self.settings, self.drawn = out, settings, drawn
        self._protected, self._victim, self._manner = protected, victim, manner
        self._data_dir = data_dir
        self._table = known_table.read(settings.calibration)
        self.stage: Stage = lambda title: nullcontext(lambda done, total: None)
        self.warn: Callable[[str], None] = lambda text: None
        self.lost: dict[str, int] = {}  #: queries sent whose answers were lost, by folder
        self._taken = dict(taken or {})
        self._truths: dict[str, Answers] = {}
        self.pool = drawn.pool
        self.recipe = Recipe(
            steps=settings.steps,
            seed=settings.seed + 1,
            flips=drawn.flips,
            architecture=settings.architecture,
        )
        self._claim()

    def run(
        self, thieves: list[Thief], budgets: list[int], share: Share = ALONE
    ) -> list[dict[str, Any]]:
        """Return the results of all thieves with all query budgets.

        Raises:
            EndpointError, InputError: see ``transfer_set``, ``recover``, ``crew`` and
                ``known_table.refuse_other_answers``.
        """
        for thief in thieves:
            if self._table is not None and thief.of_equation_2:
                raise InputError(f"{thief.name}: is not for calibrated answers, --calibration")
            if not thief.outsider:
                self._whole(f"--recover {thief.recover}" if thief.learns_truth else thief.name)
        with alone(self.out):
            for thief in thieves:
                if self._folder(thief).name not in self._taken:
                    self._record(thief).claim(self._folder(thief), ours=True)
            self._look_at_answers()  # what they are judged by comes first
            work = partial(self._work, threads=share.threads)
            with crew(self._scene(), work, share.jobs) as steal:
                for queries, some in self._missing(thieves, budgets):
                    steal(self._theft(some, queries))
        paths = (self._result(thief, queries) for thief in thieves for queries in budgets)
        return [_read(path) for path in paths]

    def stages_left(self, thieves: list[Thief], budgets: list[int]) -> int:
        """Return how often ``stage`` will be called by ``run``."""
        left = int(not (self.out / REFERENCE).is_file())
        asking = set()
        for thief in thieves:
            missing = sum(not self._result(thief, queries).is_file() for queries in budgets)
            left += missing
            if missing:
                asking.add((thief.attack, thief.unprotected))
        done = {
            (thief.attack, thief.unprotected)
            for thief in thieves
            if self._folder(thief).name in self._taken
            or TransferSetFile(self._folder(thief), self.pool).spent >= self.settings.queries
        }
        return left + len(asking - done)

    def transfer_set(self, thief: Thief) -> TransferSet:
        """Return the answers that a thief's attack paid for, after asking for what is missing.

        Raises:
            EndpointError: the server refused a request, or failed on it again and again.
        """
        folder = self._folder(thief)
        query = self._whole(thief.name) if thief.unprotected else self._protected
        if folder.name in self._taken:
            return self._taken[folder.name]
        file = TransferSetFile(folder, self.pool)
        budget = self.settings.queries
        asked = self._plan(thief.attack)  # refuses a budget beyond the pool
        if file.spent < budget:
            side = "the victim" if thief.unprotected else "the endpoint"
            with self.stage(f"{thief.attack}: ask {side}, {budget} queries") as progress:
                collect(
                    *(asked, query),
                    manner=self._manner,
                    file=file,
                    total=budget,
                    progress=progress,
                    guard=deferred_signals,
                )
        if file.lost:
            self.lost[folder.name] = file.lost
        return self._taken.setdefault(folder.name, file.read())

    def results(self) -> list[dict[str, Any]]:
        """Return what the folder holds of this and of earlier calls, by thief and queries."""
        found = [_read(path) for path in (self.out / "results").glob("*.json")]
        return sorted(found, key=lambda result: (result["name"], result["queries"]))

    def ask_again(self) -> list[str]:
        """Return a line for each model that still answers as this folder says, if it says that.

        Raises:
            InputError, EndpointError: see ``same_answers.ask_again``.
        """
        models = {
            "protected": (self.settings.model, self._protected),
            "reference": (self.settings.victim, self._victim),
        }
        return same_answers.ask_again(
            *(self.out / REFERENCE, models, self.drawn.test), batch=self._manner.batch_size
        )

    def protection(self) -> dict[str, Any]:
        """Return what honest users get: the endpoint's answers to the test set, judged."""
        truth, protected = self._reference["reference"], self._reference["protected"]
        return judge(protected, truth, self.drawn.labels) | {"judged_by": self.judged_by}

    @property
    def unknown_table(self) -> bool:
        """Whether the endpoint seems to answer by a table that thieves do not know."""
        return self._table is None and known_table.looks_calibrated(self._reference["protected"])

    @property
    def classes(self) -> int:
        """The number of classes, K."""
        return int(self._reference["reference"].shape[1])

    @property
    def judged_by(self) -> str:
        """The model whose answers count as the truth."""
        return self.settings.victim or self.settings.model

    def _look_at_answers(self) -> None:
        """Ask about the test set, and look whether thieves know by which table it is answered."""
        answers, model = self._reference["protected"], self.settings.model
        if self._table is not None:
            known_table.refuse_other_answers(self._table, answers, model)
        elif self.unknown_table:
            self.warn(
                f"warning: {model} answers as if by a table of calibrated levels, which these "
                "thieves do not know; --calibration names it (with another --out)"
            )

    def _folder(self, thief: Thief) -> Path:
        return self.out / (thief.attack + "-unprotected" * thief.unprotected)

    def _result(self, thief: Thief, queries: int) -> Path:
        return self.out / "results" / f"{thief.name}-{queries}.json"

    def _missing(
        self, thieves: list[Thief], budgets: list[int]
    ) -> Iterator[tuple[int, tuple[Thief, ...]]]:
        """Yield, by queries, who has no result yet; together those who begin with one training."""
        alike: dict[tuple[str, str], list[Thief]] = {}
        for thief in thieves:
            alike.setdefault((self._folder(thief).name, thief.beginning), []).append(thief)
        for some in alike.values():
            for queries in budgets:
                left = tuple(one for one in some if not self._result(one, queries).is_file())
                if left:
                    yield queries, left

    def _theft(self, thieves: tuple[Thief, ...], queries: int) -> Theft:
        taken, true = self.transfer_set(thieves[0]), None
        if any(thief.learns_truth for thief in thieves):
            true = self._true_answers(thieves[0])[:queries]
        return Theft(
            thieves=thieves, queries=queries, taken=taken.first(queries), true_answers=true
        )

    def _work(self, place: Place, theft: Theft, *, threads: int | None) -> None:
        """Do a theft, and keep what each of its thieves has."""
        place.begin(theft)
        queries = theft.queries
        for thief in theft.thieves:
            with self.stage(f"{thief.name}: {queries} queries") as progress:
                measured = place.steal(thief, progress)
            about = {"name": thief.name, "queries": queries, "outsider": thief.outsider}
            made = {**about, **asdict(thief), **measured, "threads": threads}
            write_json(self._result(thief, queries), made)

    def _scene(self) -> Scene:
        settings = self.settings
        own = {name: getattr(settings, name) for name in ("beta", "gamma", "margin")}
        if self._table is not None:
            own = {"defense": "calibrated", "calibration": settings.table}
        return Scene(
            defence=Parameters(scores="probabilities", **own),
            table=self._table,
            recipe=self.recipe,
            pool=features(self.pool),
            test=features(self.drawn.test),
            truth=self._reference["reference"],
            labels=self.drawn.labels,
        )

    def _true_answers(self, thief: Thief) -> Answers:
        """The victim's to a thief's rows; asked once, for all budgets and thieves."""
        folder = self._folder(thief).name
        if folder not in self._truths:
            self._truths[folder] = self._true(self.transfer_set(thief).rows)
        return self._truths[folder]

    def _plan(self, attack: str) -> Plan:
        means = Means(
            pool=self.pool,
            budget=self.settings.queries,
            rng=np.random.default_rng(self.settings.seed),
            recipe=self.recipe,
            others=self.settings.others,
            data_dir=self._data_dir,
        )
        return ATTACKS[attack].plan(means)

    def _true(self, rows: Rows) -> Answers:
        return ask(self._whole("true answers"), rows, batch_size=self._manner.batch_size)

    def _whole(self, who: str) -> Query:
        """The model without a defence, for whoever needs it."""
        if self._victim is None:
            raise InputError(f"{who}: needs --victim, the model without a defence")
        return self._victim

    def _claim(self) -> None:
        """Make ``out`` this campaign's, unless it is another's."""
        path, before = self.out / NAME, self.out / attack_record.NAME
        if before.is_file() and not path.exists():
            with suppress(InputError):  # the file's name in earlier versions
                read(before, CampaignSettings)
                before.rename(path)
        claim(path, self.settings, where=f"--out {self.out}")

    def _record(self, thief: Thief) -> AttackRecord:
        """What the attack of a thief does, for the folder of its transfer set."""
        model = self.settings.victim if thief.unprotected else self.settings.model
        return AttackRecord.of(self.settings, self._data_dir, attack=thief.attack, model=model)

    @cached_property
    def _reference(self) -> dict[str, Answers]:
        """The answers by which thieves are judged; none of them costs a thief a query."""
        path = self.out / REFERENCE
        if not path.is_file():
            size, rows = self._manner.batch_size, self.drawn.test
            with self.stage(f"ask about the test set, {len(rows)} rows"):
                protected = ask(self._protected, rows, batch_size=size)
                truth = protected if self._victim is None else self._true(rows)
            write_arrays(path, protected=protected, reference=truth)
        return same_answers.read(path)


def _read(path: Path) -> dict[str, Any]:
    """Return a result.

    Raises:
        InputError: the file holds something else.
    """
    with suppress(ValueError, AttributeError):
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if found.keys() >= _TOLD:
            return found
    raise InputError(
        f"{path}: expected what a thief stole; move the file away, and the same command makes it "
        "again"
    )
