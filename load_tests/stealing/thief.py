"""Who steals how: an attack that spends the queries, and what is made of the answers."""

from dataclasses import dataclass

from load_tests.stealing import losses
from load_tests.stealing.attacks import registry
from load_tests.stealing.attacks.registry import ATTACKS
from load_tests.stealing.losses import LOSSES
from load_tests.stealing.recovery import recover as recoveries
from load_tests.stealing.recovery.recover import RECOVERIES
from postprocess.errors import InputError

__all__ = ["ATTACKS", "LABELS", "LOSSES", "NAIVE", "RECOVERIES", "UNPROTECTED", "Thief", "suite"]


@dataclass(frozen=True, kw_only=True)
class Thief:
    """One way to steal.

    Raises:
        InputError: no such attack, loss or recovery, or two that exclude each other.
    """

    attack: str  #: see ``attacks.registry``
    loss: str = "cross_entropy"  #: see ``losses``
    labels_only: bool = False  #: keep the top-1 classes and nothing else
    recover: str = ""  #: see ``recovery.recover``; none where it is empty
    unprotected: bool = False  #: asks the victim itself, for comparison

    def __post_init__(self) -> None:
        attack, loss = registry.find(self.attack), losses.find(self.loss)
        recovery = recoveries.find(self.recover) if self.recover else None
        if self.labels_only and (recovery or self.loss != "cross_entropy"):
            raise InputError("--labels-only: leaves nothing to --recover or for another --loss")
        if recovery and loss.behind_defence:
            raise InputError(f"--loss {self.loss}: learns from protected answers, not --recover")
        if recovery and recovery.with_true_pairs and attack.average:
            raise InputError(f"--recover {self.recover}: is not for the mean of near-duplicates")

    @property
    def name(self) -> str:
        """Such as ``sample-mse``, the name of its results; parts that are default are left out."""
        parts = [self.attack]
        if self.unprotected:
            parts.append("unprotected")
        if self.labels_only:
            parts.append("labels")
        if self.recover:
            parts.append(self.recover)
        if self.loss != "cross_entropy":
            parts.append(self.loss)
        return "-".join(parts)

    @property
    def outsider(self) -> bool:
        """Whether it needs nothing but the protected endpoint."""
        fitted = self.recover and recoveries.find(self.recover).with_true_pairs
        return not (fitted or self.unprotected)


#: The naive thief of the paper, and the one whom no defence that keeps the top-1 class stops.
NAIVE = Thief(attack="sample")
LABELS = Thief(attack="sample", labels_only=True)
UNPROTECTED = Thief(attack="sample", unprotected=True)


def suite(*, with_victim: bool) -> list[Thief]:
    """Return every thief of ``attack all``: the paper's, and the stronger ones since.

    Args:
        with_victim: whether the unprotected victim can be asked too; adds the comparison
            without a defence, and the recoveries that are fitted on true answers.
    """
    averaging = [name for name, attack in ATTACKS.items() if attack.average]
    others = [name for name in ATTACKS if name not in (NAIVE.attack, *averaging)]
    thieves = [
        NAIVE,
        LABELS,
        *(Thief(attack="sample", loss=loss) for loss in LOSSES if loss != NAIVE.loss),
        *(
            Thief(attack="sample", recover=name)
            for name, recovery in RECOVERIES.items()
            if with_victim or not recovery.with_true_pairs
        ),
        *(Thief(attack=name, recover=way) for name in averaging for way in ("", "table")),
        *(Thief(attack=name) for name in others),
    ]
    if with_victim:
        thieves.append(UNPROTECTED)
        thieves += [Thief(attack=name, unprotected=True) for name in others]
    return thieves
