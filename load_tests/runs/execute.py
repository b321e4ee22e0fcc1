"""One run, from its victim to its measures."""

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from exporters.training.datasets import Images
from exporters.training.train import BATCH, Watch, predict
from load_tests.asking.endpoint import Answers
from load_tests.calibrate import honest
from load_tests.data.rows import features
from load_tests.reporting import measures
from load_tests.runs import answers
from load_tests.runs.run import Run
from load_tests.runs.victims import TrainedVictim
from load_tests.stealing.attacks.base import Means
from load_tests.stealing.attacks.jacobian import real_images
from load_tests.stealing.attacks.registry import ATTACKS
from load_tests.stealing.collect import drive
from load_tests.stealing.recovery.recover import POOL_ROWS, Knowledge, shadow_prior
from load_tests.stealing.steal import Loot, steal
from load_tests.stealing.substitute import Recipe
from load_tests.stealing.transfer_set import Queries, TransferSet, joined
from postprocess.postprocessor import Postprocessor
from postprocess.scores import to_logits

#: Shares of the training at which a substitute is judged too.
CHECKPOINTS = (1 / 8, 1 / 4, 1 / 2, 1)
#: Images that it is judged on there, at most.
CHECKPOINT_IMAGES = 1000
#: Pairs of images that are kept of a Jacobian attack.
EXAMPLES = 8

#: None where nobody knows the true classes.
_Labels = NDArray[np.integer[Any]] | None


def execute(run: Run, victim: TrainedVictim) -> dict[str, Any]:
    """Return the measures of a run.

    ``victim`` has the accuracy of M; ``protected`` compares P with M; ``recovered`` what the
    thief made of the answers with what M said, and ``asked`` the answers themselves; ``stolen``
    the substitute with M, and ``curve`` the same along its training (before its last quarter, at
    the full learning rate), on at most ``CHECKPOINT_IMAGES`` images, each with its ``queries``,
    the images shown so far. With ``held_out`` rows, ``honest`` is what clients can do with the
    answers.
    """
    drawn = victim.drawn
    judged = _judged(run, len(drawn.test))
    images = features(drawn.test)[judged]
    labels = None if drawn.labels is None else drawn.labels[judged]
    truth = _probabilities(victim.test_logits[judged])
    asked = _Answers(run, victim)
    given = asked.protect(victim.test_logits[judged])
    result: dict[str, Any] = {
        "victim": _worth(truth, labels),
        "protected": judge(given, truth, labels),
    }
    if run.held_out and labels is not None:
        result["honest"] = honest.worth(given, labels)
    if not run.steals:
        return result
    curve = []
    checkpoints = frozenset(max(1, round(share * run.steps)) for share in CHECKPOINTS)
    some = slice(min(len(images), CHECKPOINT_IMAGES))

    def look(model: Any, done: int) -> None:
        scores = _probabilities(predict(model, images[some]))
        judged = judge(scores, truth[some], None if labels is None else labels[some])
        curve.append({"queries": done * BATCH, **judged})

    loot, true = _theft(run, victim, asked, Watch(checkpoints, look))
    if run.recover:
        result["asked"] = _compare(loot.asked.scores, true)
        result["recovered"] = _compare(loot.recovered.scores, true)
    if run.attack == "jacobian":
        result["examples"] = _examples(run, loot.asked, true, len(victim.pool))
    if run.substitute:
        substitute = predict(loot.substitute, images)
        result["stolen"] = judge(_probabilities(substitute), truth, labels)
        result["curve"] = curve
    return result


def _judged(run: Run, rows: int) -> NDArray[np.intp]:
    """Return which rows of the test set judge."""
    every = np.arange(rows)
    return (every[every % run.held_out > 0] if run.held_out else every)[: run.judged_on or rows]


def judge(scores: Answers, truth: Answers, labels: _Labels) -> dict[str, float]:
    """Return the paper's five measures of probabilities against M's, and what they are worth."""
    return {**_compare(scores, truth), **_worth(scores, labels)}


def _compare(scores: Answers, truth: Answers) -> dict[str, float]:
    overlap = measures.top5_overlap(scores, truth)
    return {**measures.between(scores, truth), "top5_overlap": overlap}


def _worth(scores: Answers, labels: _Labels) -> dict[str, float]:
    if labels is None:
        return {"confidence": measures.confidence(scores)}
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
            self.protect = Postprocessor(parameters)
        if run.answers:
            held = slice(0, None, run.held_out or None)
            labels = victim.drawn.labels
            known = None if labels is None else labels[held]
            self.protect = answers.find(run.answers, victim.test_logits[held], known)
        self._victim = victim

    def again(self, probabilities: Answers) -> Answers:
        """Return what a client gets where the victim says so, as whoever knows the table does."""
        return self.protect(to_logits(probabilities, probabilities=True))

    def to(self, queries: Queries) -> tuple[Answers, Answers]:
        """Return what a client gets, and what the victim said; the pool's is known already."""
        if queries.pool_index is None:
            logits = self._victim.logits(features(queries.rows))
        else:
            logits = self._victim.pool_logits[queries.pool_index]
        return self.protect(logits), _probabilities(logits)


def _theft(run: Run, victim: TrainedVictim, asked: _Answers, watch: Watch) -> tuple[Loot, Answers]:
    """Return what the thief makes of the answers, and the victim's own beside them."""
    recipe = Recipe(
        steps=max(1, run.steps),
        seed=run.seed + 1,
        flips=victim.drawn.flips,
        architecture=run.substitute or victim.victim.architecture,
    )
    attack = ATTACKS[run.attack]
    means = Means(
        pool=victim.pool,
        budget=int(min(run.queries, attack.limit(victim.pool))),
        rng=np.random.default_rng(run.seed),
        recipe=recipe,
        real=run.real,
    )
    truths: list[TransferSet] = []

    def ask(queries: Queries) -> TransferSet:
        scores, true = asked.to(queries)
        truths.append(TransferSet(queries.rows, true))
        return TransferSet(queries.rows, scores)

    taken = joined(drive(attack.plan(means), ask))
    true = attack.digest(joined(truths)).scores
    knowledge = Knowledge(
        # Every parameter is known, what is drawn is not.
        defence=replace(run.parameters, scores="probabilities", seed=None),
        prior=lambda asked: shadow_prior(asked, victim.pool, recipe),
        pool=victim.pool[:POOL_ROWS],
        seed=recipe.seed,
        true_answers=lambda _: true,
        answers=asked.again if run.answers else None,
    )
    return steal(taken, run.thief, knowledge, recipe if run.substitute else None, watch=watch), true


def _examples(run: Run, asked: TransferSet, true: Answers, pool: int) -> list[dict[str, Any]]:
    """Return a few made images beside the real ones that they were made from (Figure 3)."""
    real = run.real or real_images(run.queries, pool)
    found = []
    for made in range(real, min(real + EXAMPLES, len(asked))):
        distance = np.abs(asked.features[:real] - asked.features[made]).mean(axis=(1, 2, 3))
        pair = {"real": int(distance.argmin()), "made": made}
        found.append(
            {
                "shape": list(asked.features.shape[1:]),
                **{f"{name}_pixels": _packed(asked.features[at]) for name, at in pair.items()},
                **{f"{name}_class": int(true[at].argmax()) for name, at in pair.items()},
            }
        )
    return found


def _packed(image: Images) -> str:
    """Return an image's bytes, 0 to 255, as base64."""
    return base64.b64encode(np.rint(image * 255).astype(np.uint8).tobytes()).decode()


def _probabilities(logits: Answers) -> Answers:
    rows: Answers = softmax(logits, axis=1)
    return rows
