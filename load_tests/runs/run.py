"""What one run is: everything about it that decides its result; ``conditions`` has the rest."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from exporters.training import architectures, datasets
from load_tests.stealing.thief import Thief
from postprocess.defences import DEFENCES
from postprocess.errors import InputError
from postprocess.parameters import Parameters

#: One row of the test set in so many makes tables of calibrated answers, and judges nothing.
HELD_OUT = 3

#: What a run comes to, as it stands in its file.
Measures = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Victim:
    """The network that is stolen, M."""

    data: str  #: see ``exporters.training.datasets``
    architecture: str
    steps: int  #: training batches of 64
    seed: int  #: of the hold-off, the initial weights, the shuffles and the augmentation

    def __post_init__(self) -> None:
        architectures.find(self.architecture)
        if self.data not in datasets.NAMES and not self.data.endswith(".npz"):
            raise InputError(
                f"data: expected {', '.join(datasets.NAMES)} or an .npz file, got {self.data!r}"
            )

    @property
    def name(self) -> str:
        """Such as ``mnist-simple-600-s0``."""
        return f"{Path(self.data).stem}-{self.architecture}-{self.steps}-s{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One thief before one protected victim, or the protected victim alone."""

    victim: Victim
    #: Parameters of the defence beside ``scores``; empty for none.
    defence: dict[str, Any] = field(default_factory=dict)
    #: The thief's network; without one and without ``recover`` there is no thief.
    substitute: str = ""
    attack: str = "sample"
    #: Images the thief asks about; of real ones, at most as many as it has.
    queries: int = 0
    real: int = 0  #: real images that Jacobian begins with, 0 for a sixteenth of the queries
    steps: int = 0  #: training batches of 64 that the thief makes of the answers
    loss: str = "cross_entropy"
    labels_only: bool = False
    recover: str = ""
    learn: str = ""
    seed: int = 0  #: of the attack, of the substitute and of a defence that draws
    judged_on: int = 0  #: images of the test set that are used, 0 for all
    #: What is answered in the place of the defence's answers, see ``answers``; nothing if empty.
    answers: str = ""
    #: One row of the test set in so many judges nothing: tables of answers are made of them.
    held_out: int = 0

    def __post_init__(self) -> None:
        _ = self.parameters
        if self.substitute:
            architectures.find(self.substitute)
        if self.held_out == 1 or (self.answers.startswith("calibrated") and not self.held_out):
            raise InputError("run: expected held_out of at least 2, for calibrated answers too")
        if self.steals:
            _ = self.thief
            if self.queries < 1 or (self.substitute and self.steps < 1):
                raise InputError(
                    "run: expected queries and steps of at least 1 for a thief, got "
                    f"{self.queries} and {self.steps}"
                )

    @property
    def steals(self) -> bool:
        """Whether there is a thief, who trains a substitute or only undoes the defence."""
        return bool(self.substitute or self.recover)

    @property
    def parameters(self) -> Parameters:
        """The defence; ``none`` where it has no parameters."""
        given = dict(self.defence or {"defense": "none"})
        if given["defense"] in DEFENCES and DEFENCES[given["defense"]].draws:
            given["seed"] = self.seed
        return Parameters(scores="logits", **given)

    @property
    def thief(self) -> Thief:
        """How the answers are used."""
        return Thief(
            attack=self.attack,
            loss=self.loss,
            labels_only=self.labels_only,
            recover=self.recover,
            learn=self.learn,
        )

    def but(self, **changes: Any) -> "Run":
        """Return the run with some of it changed."""
        return replace(self, **changes)

    @cached_property
    def name(self) -> str:
        """The name of its file: readable, and with a hash of everything, unique."""
        parts = [self.victim.name, self.defence.get("defense", "none")]
        parts += [f"{key}{value}" for key, value in self.defence.items() if key in _SHOWN]
        parts += [self.thief.name, f"q{self.queries}"] if self.steals else ["protection"]
        text = json.dumps(self.to_json(), sort_keys=True)
        return f"{'-'.join(parts)}-s{self.seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in its file, whose name hangs on all of it.

        What was added since the first files is left out where it is not used.
        """
        return {key: value for key, value in asdict(self).items() if key not in _SINCE or value}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Run":
        """Return the run that a file describes.

        Raises:
            InputError: it describes none.
        """
        known = {each.name for each in fields(cls)}
        if not isinstance(content, dict) or "victim" not in content or set(content) - known:
            raise InputError(f"run: expected an object with {', '.join(sorted(known))}")
        try:
            return cls(**{**content, "victim": Victim(**content["victim"])})
        except (TypeError, KeyError, AttributeError) as error:
            raise InputError(f"run: {error}") from None


#: A run's measures, or None while it has not been made.
Known = Callable[[Run], Measures | None]

_SINCE = ("learn", "answers", "held_out")
_SHOWN = ("beta", "gamma", "rho", "frequency", "decimals")
