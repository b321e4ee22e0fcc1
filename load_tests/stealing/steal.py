"""What a thief makes of answers: what is learnt from, the defence undone, a substitute trained."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from exporters.training.train import Progress, Watch
from load_tests.stealing.attacks.registry import ATTACKS
from load_tests.stealing.learning.learn import LEARNERS
from load_tests.stealing.recovery.recover import Knowledge, recover
from load_tests.stealing.substitute import Recipe, train_substitute
from load_tests.stealing.thief import Thief
from load_tests.stealing.transfer_set import TransferSet


@dataclass(frozen=True)
class Loot:
    """What there is after a theft."""

    asked: TransferSet  #: what of the answers is learnt from, see ``StealingAttack.digest``
    recovered: TransferSet  #: the same, the defence undone as far as the thief does that
    substitute: Any  #: a Keras model from images to logits; None without a recipe


def steal(
    taken: TransferSet,
    thief: Thief,
    knowledge: Knowledge,
    recipe: Recipe | None,
    *,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Loot:
    """Return what a thief makes of the answers that an attack paid for.

    Args:
        taken: all of them.
        thief: who.
        knowledge: what they know beside the answers.
        recipe: how they train; the thief decides on what. None: they only undo the defence.
        progress: of the training, called after every step.
        watch: see ``train_substitute``.

    Raises:
        InputError: the knowledge does not suffice, or the training diverged.
    """
    asked = recovered = ATTACKS[thief.attack].digest(taken)
    if thief.recover:
        recovered = recover(thief.recover, asked, knowledge)
    substitute = None
    if recipe is not None:
        recipe = replace(
            recipe, loss=thief.loss, labels_only=thief.labels_only, defence=knowledge.defence
        )
        train = partial(train_substitute, progress=progress, watch=watch)
        if thief.learn:
            substitute = LEARNERS[thief.learn](recovered, recipe, knowledge.pool, train)
        else:
            substitute = train(recovered, recipe)
    return Loot(asked, recovered, substitute)
