"""Settings to choose among, and what each leaves of the answers: no training takes part."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from scipy.special import softmax

from load_tests.reporting import measures
from load_tests.runs.victims import Logits
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

#: Beyond these a setting does next to nothing, or no more than its neighbour.
BETAS = (0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.35, 1.5)
GAMMAS = (0.05, 0.1, 0.2, 0.4, 0.7)
#: Images on which answers are compared, at most.
ROWS = 2000


@dataclass(frozen=True)
class Candidate:
    """One setting, and its answers against the classifier's own, on the test set."""

    beta: float
    gamma: float
    margin: float
    decimals: int | None
    cosine: float  #: of the protected and the true probabilities, 0 to 1: what honest users keep
    top5_overlap: float  #: of the five likeliest classes, 0 to 1
    lead: float  #: mean of the top class over the next: what substitutes learn from

    @property
    def setting(self) -> dict[str, Any]:
        """Return its parameters."""
        names = ("beta", "gamma", "margin", "decimals")
        return {name: getattr(self, name) for name in names}

    def weaker_than(self, other: "Candidate") -> bool:
        """Return whether it perturbs less than another that differs in beta alone."""
        mine, theirs = self.setting, other.setting
        return mine.pop("beta") <= theirs.pop("beta") and mine == theirs


def make(
    logits: Logits,
    now: Parameters,
    *,
    betas: Sequence[float],
    gammas: Sequence[float],
    margins: Sequence[float],
    decimals: Sequence[int | None],
) -> list[Candidate]:
    """Return every combination, with what it leaves of the answers.

    Args:
        logits: of the test set, shape (n, K).
        now: the defence that is there; the candidates differ from it in these four alone.
        betas, gammas, margins, decimals: what to combine.

    Raises:
        InputError: a value that the defence refuses.
    """
    some = logits[:ROWS]
    truth = softmax(some.astype(np.float64), axis=1)
    found = []
    for gamma, margin, digits, beta in product(gammas, margins, decimals, betas):
        setting: dict[str, Any] = {
            "beta": beta,
            "gamma": gamma,
            "margin": margin,
            "decimals": digits,
        }
        parameters = replace(now, scores="logits", **setting)
        answers = Postprocessor(parameters)(some)
        highest = np.partition(answers, -2, axis=1)[:, -2:]
        found.append(
            Candidate(
                **setting,
                cosine=measures.cosine(answers, truth),
                top5_overlap=measures.top5_overlap(answers, truth),
                lead=float((highest[:, 1] - highest[:, 0]).mean()),
            )
        )
    return found
