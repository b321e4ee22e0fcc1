"""What thieves make of the same answers, and what each of them has stolen then.

All that decides it is in a ``Scene`` and a ``Theft``, so it is the same here and in a process of
its own.
"""

from dataclasses import dataclass

from scipy.special import softmax

from exporters.training.datasets import Images, Labels
from exporters.training.train import Progress, predict
from load_tests.asking.endpoint import Answers
from load_tests.reporting import measures
from load_tests.stealing.recovery.recover import POOL_ROWS, Knowledge, shadow_prior
from load_tests.stealing.steal import steal
from load_tests.stealing.substitute import Recipe
from load_tests.stealing.thief import Thief
from load_tests.stealing.transfer_set import TransferSet
from postprocess.calibration import Calibration
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What all thefts of a campaign have in common."""

    defence: Parameters  #: what adversaries take it to be
    recipe: Recipe  #: how they train
    pool: Images  #: features of the adversary's rows
    test: Images  #: of those that the substitutes are judged by
    truth: Answers  #: what the victim says of them
    labels: Labels | None  #: and what they are, where that is known
    table: Calibration | None = None  #: by which calibrated answers are made


@dataclass(frozen=True, kw_only=True)
class Theft:
    """Answers that were paid for, and those who learn from them, one after the other."""

    thieves: tuple[Thief, ...]  #: of one attack
    queries: int  #: that were spent on them; answers may have been lost
    taken: TransferSet
    true_answers: Answers | None = None  #: the victim's to the same rows, where they can be had


class Here:
    """Thieves in this process."""

    def __init__(self, scene: Scene) -> None:
        """Take what all of them have."""
        self._scene, self._by_table = scene, None
        if scene.table is not None:
            self._by_table = Postprocessor(scene.defence, table=scene.table)

    def begin(self, theft: Theft) -> None:
        """Turn to other answers."""
        self._theft = theft
        self._priors: list[Answers] = []  # of one shadow, for all who have one

    def steal(self, thief: Thief, progress: Progress) -> dict[str, float]:
        """Return the measures of one thief's substitute.

        Raises:
            InputError: see ``steal.steal``.
        """
        scene, true = self._scene, self._theft.true_answers
        knowledge = Knowledge(
            defence=scene.defence,
            prior=self._prior,
            pool=scene.pool[:POOL_ROWS],
            seed=scene.recipe.seed,
            true_answers=None if true is None else lambda _: true,
            answers=self._by_table,
        )
        loot = steal(self._theft.taken, thief, knowledge, scene.recipe, progress=progress)
        scores: Answers = softmax(predict(loot.substitute, scene.test), axis=1)
        return judge(scores, scene.truth, scene.labels)

    def _prior(self, asked: TransferSet) -> Answers:
        if not self._priors:
            self._priors.append(shadow_prior(asked, self._scene.pool, self._scene.recipe))
        return self._priors[0]


def judge(scores: Answers, truth: Answers, labels: Labels | None) -> dict[str, float]:
    """Return the five measures of section 4, of probabilities against the victim's.

    Without labels there is no accuracy.
    """
    accuracy = {} if labels is None else {"accuracy": measures.accuracy(scores, labels)}
    return {**accuracy, **measures.between(scores, truth)}
