"""What an adversary makes of protected answers before a substitute learns from them.

| name | needs |
| --- | --- |
| ``tail`` | a shadow: a substitute of the labels alone, whose answers stand for the victim's |
| ``table`` | a shadow, and beta and gamma |
| ``neural`` | a shadow, and beta and gamma |
| ``analytic`` | beta and gamma |
| ``linear`` | pairs of protected and true answers, which no outsider has |
| ``mlp`` | the same |
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from exporters.datasets import Images
from exporters.train import augment, predict
from load_tests.endpoint import Answers
from load_tests.stealing.recovery import analytic, inverse, table, tail_ranking
from load_tests.stealing.substitute import Recipe, train_substitute
from load_tests.stealing.thief import RECOVERIES, WITH_TRUE_PAIRS
from load_tests.stealing.transfer_set import TransferSet
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

#: Most rows of the prior: of the adversary's images and shifted copies of them.
PRIOR_ROWS = 20_000


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What an adversary knows beside the transfer set."""

    defence: Parameters  #: what they take the defence to be
    prior: Callable[[], Answers]  #: probabilities of the shadow, see ``shadow_prior``
    seed: int  #: of the MLPs
    #: The victim's own answers to the transfer set's images; None for an outsider.
    true_answers: Callable[[], Answers] | None = None


def recover(name: str, transfer_set: TransferSet, knowledge: Knowledge) -> TransferSet:
    """Return the transfer set with what the victim may have said in place of the answers.

    Args:
        name: one of ``RECOVERIES``.
        transfer_set: the endpoint's answers.
        knowledge: what the adversary knows beside them.

    Raises:
        InputError: the name is unknown, or the knowledge does not suffice.
    """
    if name not in RECOVERIES:
        raise InputError(f"--recover: expected {', '.join(RECOVERIES)}, got {name!r}")
    answers = transfer_set.scores
    if name == "analytic":
        recovered = analytic.recover(answers, knowledge.defence)
    elif name in WITH_TRUE_PAIRS:
        if knowledge.true_answers is None:
            raise InputError(f"--recover {name}: needs --victim, to fit it on true answers")

        def mlp(protected: Answers, true: Answers) -> inverse.Inverse:
            return inverse.mlp(protected, true, seed=knowledge.seed)

        fit = inverse.linear if name == "linear" else mlp
        recovered = inverse.crosswise(fit, answers, knowledge.true_answers())
    else:
        prior = knowledge.prior()
        copy = Postprocessor(knowledge.defence)
        if name == "tail":
            recovered = tail_ranking.recover(answers, prior)
        elif name == "table":
            recovered = table.recover(answers, prior, copy)
        else:
            recovered = inverse.mlp(copy(prior), prior, seed=knowledge.seed)(answers)
    return TransferSet(transfer_set.images, recovered)


def shadow_prior(transfer_set: TransferSet, pool: Images, recipe: Recipe) -> Answers:
    """Return a shadow's probabilities for an adversary's images, shape (m, K), m <= 20,000.

    The shadow is a substitute of the answers' labels, so it costs no further query.

    Args:
        transfer_set: the endpoint's answers.
        pool: images of the adversary, shape (n, height, width, channels); copies are shifted.
        recipe: how the adversary trains.
    """
    recipe = recipe.on_labels(seed=recipe.seed + 1)
    shadow = train_substitute(transfer_set, recipe)
    rng = np.random.default_rng(recipe.seed)
    pool = pool[rng.permutation(len(pool))[:PRIOR_ROWS]]
    copies = min(20, PRIOR_ROWS // len(pool) - 1)
    moved = [augment(pool, rng, flips=recipe.flips) for _ in range(copies)]
    prior: Answers = softmax(predict(shadow, np.concatenate([pool, *moved])), axis=1)
    return prior
