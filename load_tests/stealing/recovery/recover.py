"""What an adversary makes of protected answers before a substitute learns from them.

| name | needs |
| --- | --- |
| ``tail`` | a shadow: a substitute of the labels alone, whose answers stand for the victim's |
| ``table`` | a shadow, and beta and gamma |
| ``neural`` | a shadow, and beta and gamma |
| ``bayes`` | a shadow, and beta and gamma |
| ``d_dae`` | a shadow |
| ``analytic`` | beta and gamma |
| ``mixture`` | beta and gamma |
| ``linear`` | pairs of protected and true answers, which no outsider has |
| ``mlp`` | the same |
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from exporters.registry import Registry
from exporters.training.datasets import Images
from exporters.training.train import augment, predict
from load_tests.asking.endpoint import Answers
from load_tests.stealing.recovery import bayes, d_dae, inverse, table, tail_ranking
from load_tests.stealing.substitute import Recipe, train_substitute
from load_tests.stealing.transfer_set import TransferSet
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

#: Most rows that are learnt from without answers; of the prior, shifted copies among them.
POOL_ROWS = 20_000


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What an adversary knows beside the transfer set."""

    defence: Parameters  #: what they take the defence to be
    prior: Callable[[TransferSet], Answers]  #: probabilities of the shadow, see ``shadow_prior``
    pool: Images  #: features of rows that nobody needs to be asked about
    seed: int  #: of the MLPs
    #: The victim's own answers to a transfer set's rows; None for an outsider.
    true_answers: Callable[[TransferSet], Answers] | None = None
    #: What is made of probabilities where that is no defence.
    answers: Callable[[Answers], Answers] | None = None

    @property
    def copy(self) -> Callable[[Answers], Answers]:
        """The adversary's copy of what makes the answers."""
        return self.answers or Postprocessor(self.defence)


@dataclass(frozen=True)
class Recovery:
    """One way to undo a defence."""

    recover: Callable[[TransferSet, Knowledge], Answers]
    #: Whether it is fitted on true answers, more than an outsider can have.
    with_true_pairs: bool = False
    with_shadow: bool = False  #: whether it asks for ``Knowledge.prior``
    of_equation_2: bool = False  #: whether it undoes Reverse Sigmoid alone


def recover(name: str, transfer_set: TransferSet, knowledge: Knowledge) -> TransferSet:
    """Return the transfer set with what the victim may have said in place of the answers.

    Args:
        name: one of ``RECOVERIES``.
        transfer_set: the endpoint's answers.
        knowledge: what the adversary knows beside them.

    Raises:
        InputError: the name is unknown, or the knowledge does not suffice.
    """
    recovery = RECOVERIES[name]
    if recovery.with_true_pairs and knowledge.true_answers is None:
        raise InputError(f"--recover {name}: needs --victim, to fit it on true answers")
    return TransferSet(transfer_set.rows, recovery.recover(transfer_set, knowledge))


def shadow_prior(transfer_set: TransferSet, pool: Images, recipe: Recipe) -> Answers:
    """Return a shadow's probabilities for what an adversary has, shape (m, K), m <= 20,000.

    The shadow is a substitute of the answers' labels, so it costs no further query.

    Args:
        transfer_set: the endpoint's answers.
        pool: what the adversary learns from, shape (n, ...); copies of images are shifted.
        recipe: how the adversary trains.
    """
    from scipy.special import softmax

    recipe = recipe.on_labels(seed=recipe.seed + 1)
    shadow = train_substitute(transfer_set, recipe)
    rng = np.random.default_rng(recipe.seed)
    pool = pool[rng.permutation(len(pool))[:POOL_ROWS]]
    copies = min(20, POOL_ROWS // len(pool) - 1) if pool.ndim == 4 else 0
    moved = [augment(pool, rng, flips=recipe.flips) for _ in range(copies)]
    prior: Answers = softmax(predict(shadow, np.concatenate([pool, *moved])), axis=1)
    return prior


def _neural(taken: TransferSet, known: Knowledge) -> Answers:
    prior = known.prior(taken)
    return inverse.mlp(known.copy(prior), prior, seed=known.seed)(taken.scores)


def _analytic(taken: TransferSet, known: Knowledge) -> Answers:
    from load_tests.stealing.recovery import analytic  # brings SciPy along

    return analytic.recover(taken.scores, known.defence)


def _mixture(taken: TransferSet, known: Knowledge) -> Answers:
    from load_tests.stealing.recovery import mixture

    return mixture.recover(taken.scores, known.defence)


def _d_dae(taken: TransferSet, known: Knowledge) -> Answers:
    return d_dae.recover(taken.scores, known.prior(taken), known.defence, seed=known.seed)


def _crosswise(
    fit: Callable[..., inverse.Inverse], taken: TransferSet, known: Knowledge
) -> Answers:
    assert known.true_answers is not None  # noqa: S101, ``recover`` has seen to it
    return inverse.crosswise(fit, taken.scores, known.true_answers(taken))


RECOVERIES = Registry(
    "--recover",
    {
        "tail": Recovery(
            lambda taken, known: tail_ranking.recover(taken.scores, known.prior(taken)),
            with_shadow=True,
        ),
        "table": Recovery(
            lambda taken, known: table.recover(taken.scores, known.prior(taken), known.copy),
            with_shadow=True,
        ),
        "neural": Recovery(_neural, with_shadow=True),
        "bayes": Recovery(
            lambda taken, known: bayes.recover(taken.scores, known.prior(taken), known.copy),
            with_shadow=True,
        ),
        "d_dae": Recovery(_d_dae, with_shadow=True, of_equation_2=True),
        "analytic": Recovery(_analytic, of_equation_2=True),
        "mixture": Recovery(_mixture, of_equation_2=True),
        "linear": Recovery(partial(_crosswise, inverse.linear), with_true_pairs=True),
        "mlp": Recovery(
            lambda taken, known: _crosswise(partial(inverse.mlp, seed=known.seed), taken, known),
            with_true_pairs=True,
        ),
    },
)
