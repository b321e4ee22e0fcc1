"""Who steals how: an attack that spends the queries, and what is made of the answers."""

from dataclasses import dataclass

from load_tests.stealing.losses import LOSSES
from postprocess.errors import InputError

ATTACKS = ("sample", "random", "jacobian", "knockoff", "duplicates")
#: What can be made of the answers first, see ``recover``.
RECOVERIES = ("tail", "table", "neural", "analytic", "linear", "mlp")
#: Those that ask more of an adversary than an outsider can have.
WITH_TRUE_PAIRS = frozenset({"linear", "mlp"})


@dataclass(frozen=True, kw_only=True)
class Thief:
    """One way to steal.

    Raises:
        InputError: no such attack, loss or recovery, or two that exclude each other.
    """

    attack: str  #: one of ``ATTACKS``
    loss: str = "cross_entropy"  #: one of ``losses.LOSSES``
    labels_only: bool = False  #: keep the top-1 classes and nothing else
    recover: str = ""  #: one of ``recover.RECOVERIES``, or none
    unprotected: bool = False  #: asks the victim itself, for comparison

    def __post_init__(self) -> None:
        if self.attack not in ATTACKS:
            raise InputError(f"attack: expected {', '.join(ATTACKS)} or all, got {self.attack!r}")
        if self.loss not in LOSSES:
            raise InputError(f"--loss: expected {', '.join(LOSSES)}, got {self.loss!r}")
        if self.recover and self.recover not in RECOVERIES:
            raise InputError(f"--recover: expected {', '.join(RECOVERIES)}, got {self.recover!r}")
        if self.labels_only and (self.recover or self.loss != "cross_entropy"):
            raise InputError("--labels-only: leaves nothing to --recover or for another --loss")
        if self.recover and self.loss == "same_layer":
            raise InputError("--loss same_layer: learns from protected answers, not --recover")
        if self.recover in WITH_TRUE_PAIRS and self.attack == "duplicates":
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
        return self.recover not in WITH_TRUE_PAIRS and not self.unprotected


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
    thieves = [
        NAIVE,
        LABELS,
        *(Thief(attack="sample", loss=loss) for loss in LOSSES if loss != NAIVE.loss),
        *(
            Thief(attack="sample", recover=name)
            for name in RECOVERIES
            if with_victim or name not in WITH_TRUE_PAIRS
        ),
        Thief(attack="duplicates"),
        Thief(attack="duplicates", recover="table"),
    ]
    others = ("random", "jacobian", "knockoff")
    thieves += [Thief(attack=attack) for attack in others]
    if with_victim:
        thieves.append(UNPROTECTED)
        thieves += [Thief(attack=attack, unprotected=True) for attack in others]
    return thieves
