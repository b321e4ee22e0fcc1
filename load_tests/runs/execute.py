"""One run, from its victim to its measures."""

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from exporters.datasets import Images
from exporters.train import BATCH, predict
from load_tests import measures
from load_tests.endpoint import Answers
from load_tests.runs.run import Run
from load_tests.runs.victims import TrainedVictim
from load_tests.stealing.attacks.jacobian import real_images
from load_tests.stealing.attacks.near_duplicates import COPIES, average
from load_tests.stealing.attacks.plans import plan
from load_tests.stealing.collect import Plan
from load_tests.stealing.recovery.recover import Knowledge, recover, shadow_prior
from load_tests.stealing.substitute import Recipe, train_substitute
from load_tests.stealing.transfer_set import Queries, TransferSet
from postprocess.postprocessor import Postprocessor

#: Shares of the training at which a substitute is judged too.
CHECKPOINTS = (1 / 8, 1 / 4, 1 / 2, 1)
#: Images that it is judged on there, at most.
CHECKPOINT_IMAGES = 1000
#: Pairs of images that are kept of a Jacobian attack.
EXAMPLES = 8
#: Of the keyed modes; no adversary has it, and any other would do as well.
_KEY = b"the operator's secret of these runs"

_Labels = NDArray[np.integer[Any]]


def execute(run: Run, victim: TrainedVictim) -> dict[str, Any]:
    """Return the measures of a run.

    ``victim`` has the accuracy of M; ``protected`` compares P with M; ``recovered`` what the
    thief made of the answers with what M said, and ``asked`` the answers themselves; ``stolen``
    the substitute with M, and ``curve`` the same along its training (before its last quarter, at
    the full learning rate), on at most ``CHECKPOINT_IMAGES`` images, each with its ``queries``,
    the images shown so far.

    Args:
        run: what to do.
        victim: the run's victim, trained.
    """
    count = run.judged_on or len(victim.dataset.x_test)
    images, labels = victim.dataset.x_test[:count], victim.dataset.y_test[:count]
    truth = _probabilities(victim.test_logits[:count])
    answers = _Answers(run, victim)
    result: dict[str, Any] = {
        "victim": _worth(truth, labels),
        "protected": judge(answers.protect(victim.test_logits[:count]), truth, labels),
    }
    if not run.steals:
        return result
    adversary = _Adversary(run, victim, answers)
    taken, true = adversary.ask()
    if run.recover:
        result["asked"] = _compare(taken.scores, true)
        taken = adversary.recover(taken, true)
        result["recovered"] = _compare(taken.scores, true)
    if run.attack == "jacobian":
        result["examples"] = adversary.examples(taken, true)
    if not run.substitute:
        return result
    curve = []
    checkpoints = {max(1, round(share * run.steps)) for share in CHECKPOINTS}
    some = slice(min(count, CHECKPOINT_IMAGES))

    def watch(model: Any, done: int) -> None:
        if done in checkpoints:
            scores = _probabilities(predict(model, images[some]))
            curve.append({"queries": done * BATCH, **judge(scores, truth[some], labels[some])})

    substitute = train_substitute(taken, adversary.recipe, watch=watch)
    result["stolen"] = judge(_probabilities(predict(substitute, images)), truth, labels)
    result["curve"] = curve
    _clear()
    return result


def judge(scores: Answers, truth: Answers, labels: _Labels) -> dict[str, float]:
    """Return the paper's five measures of probabilities against M's, and what they are worth."""
    return {**_compare(scores, truth), **_worth(scores, labels)}


def _compare(scores: Answers, truth: Answers) -> dict[str, float]:
    overlap = measures.top5_overlap(scores, truth)
    return {**measures.between(scores, truth), "top5_overlap": overlap}


def _worth(scores: Answers, labels: _Labels) -> dict[str, float]:
    return {
        "accuracy": measures.accuracy(scores, labels),
        "brier": measures.brier(scores, labels),
        "calibration_error": measures.calibration_error(scores, labels),
        "confidence": measures.confidence(scores),
    }


class _Answers:
    """The protected victim, asked in this process."""

    def __init__(self, run: Run, victim: TrainedVictim) -> None:
        parameters = run.parameters
        self.protect: Callable[[Answers], Answers] = _probabilities
        if parameters.defense != "none":
            self.protect = Postprocessor(parameters, key=_KEY if parameters.key_file else b"")
        self._victim = victim

    def to(self, queries: Queries) -> tuple[Answers, Answers]:
        """Return what a client gets, and what the victim said."""
        if queries.pool_index is None:
            logits = self._victim.logits(queries.images)
        else:
            logits = self._victim.pool_logits[queries.pool_index]
        return self.protect(logits), _probabilities(logits)


class _Adversary:
    def __init__(self, run: Run, victim: TrainedVictim, answers: _Answers) -> None:
        self._run, self._answers = run, answers
        self._pool: Images = victim.pool
        #: Every parameter is known, no secret is.
        self._defence = replace(
            run.parameters, scores="probabilities", key_file=None, decoy=None, seed=None
        )
        self.recipe = Recipe(
            steps=max(1, run.steps),
            seed=run.seed + 1,
            flips=victim.dataset.flips,
            architecture=run.substitute or victim.victim.architecture,
            loss=run.loss,
            labels_only=run.labels_only,
            defence=self._defence,
        )
        #: Of the networks that help the attack or the recovery.
        self._helpers = replace(self.recipe, loss="cross_entropy", labels_only=False)

    def ask(self) -> tuple[TransferSet, Answers]:
        """Return all answers that the attack pays for, and the victim's own beside them."""
        asked = plan(
            self._run.attack,
            self._pool,
            budget=self._budget(),
            rng=np.random.default_rng(self._run.seed),
            recipe=self._helpers,
            real=self._run.real,
        )
        taken, true = _drive(asked, self._answers)
        if self._run.attack == "duplicates":
            true = average(TransferSet(taken.images, true)).scores
            taken = average(taken)
        return taken, true

    def examples(self, taken: TransferSet, true: Answers) -> list[dict[str, Any]]:
        """Return a few made images beside the real ones that they were made from (Figure 3)."""
        real = self._run.real or real_images(self._run.queries, len(self._pool))
        found = []
        for made in range(real, min(real + EXAMPLES, len(taken))):
            distance = np.abs(taken.images[:real] - taken.images[made]).mean(axis=(1, 2, 3))
            pair = {"real": int(distance.argmin()), "made": made}
            found.append(
                {
                    "shape": list(taken.images.shape[1:]),
                    **{f"{name}_pixels": _packed(taken.images[at]) for name, at in pair.items()},
                    **{f"{name}_class": int(true[at].argmax()) for name, at in pair.items()},
                }
            )
        return found

    def _budget(self) -> int:
        """Asked twice, an image tells nothing new."""
        most = {"sample": len(self._pool), "duplicates": COPIES * len(self._pool)}
        return min(self._run.queries, most.get(self._run.attack, self._run.queries))

    def recover(self, taken: TransferSet, true: Answers) -> TransferSet:
        """Return the answers as the thief's recovery leaves them."""
        knowledge = Knowledge(
            defence=self._defence,
            prior=lambda: shadow_prior(taken, self._pool, self._helpers),
            seed=self.recipe.seed,
            true_answers=lambda: true,
        )
        return recover(self._run.recover, taken, knowledge)


def _drive(asked: Plan, answers: _Answers) -> tuple[TransferSet, Answers]:
    """Return the answers to a plan, and the true ones; the pool's are known without asking."""
    parts: list[TransferSet] = []
    truths: list[Answers] = []
    try:
        queries = next(asked)
        while True:
            scores, true = answers.to(queries)
            parts.append(TransferSet(queries.images, scores))
            truths.append(true)
            queries = asked.send(parts[-1])
    except StopIteration:
        pass
    taken = TransferSet(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )
    return taken, np.concatenate(truths)


def _packed(image: Images) -> str:
    """Return an image's bytes, 0 to 255, as base64."""
    return base64.b64encode(np.rint(image * 255).astype(np.uint8).tobytes()).decode()


def _probabilities(logits: Answers) -> Answers:
    rows: Answers = softmax(logits, axis=1)
    return rows


def _clear() -> None:
    import keras

    keras.backend.clear_session()
