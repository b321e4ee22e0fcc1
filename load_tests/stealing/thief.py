"""Who steals how: an attack that spends the queries, and what is made of the answers."""

from dataclasses import dataclass

from load_tests.stealing.attacks.registry import ATTACKS
from load_tests.stealing.learning.learn import LEARNERS
from load_tests.stealing.losses import LOSSES
from load_tests.stealing.recovery.recover import RECOVERIES
from postprocess.errors import InputError


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
    learn: str = ""  #: see ``learning.learn``; one training where it is empty
    unprotected: bool = False  #: asks the victim itself, for comparison

    def __post_init__(self) -> None:
        attack, loss = ATTACKS[self.attack], LOSSES[self.loss]
        recovery = RECOVERIES[self.recover] if self.recover else None
        if self.labels_only and (recovery or not (loss.of_labels or self.loss == "cross_entropy")):
            raise InputError("--labels-only: leaves nothing to --recover or for another --loss")
        if loss.of_labels and not self.labels_only:
            raise InputError(f"--loss {self.loss}: is of labels, and goes with --labels-only")
        if self.learn:
            _ = LEARNERS[self.learn]
            if loss.behind_defence:
                raise InputError(f"--loss {self.loss}: learns from protected answers, not --learn")
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
        if self.learn:
            parts.append(self.learn)
        return "-".join(parts)

    @property
    def beginning(self) -> str:
        """What it trains first; those of one attack who begin alike can share it."""
        if self.recover:
            return "shadow" if RECOVERIES[self.recover].with_shadow else self.name
        if self.loss != "cross_entropy":
            return self.name
        return "labels" if self.labels_only else "answers"

    @property
    def learns_truth(self) -> bool:
        """Whether it is fitted on the victim's own answers."""
        return bool(self.recover) and RECOVERIES[self.recover].with_true_pairs

    @property
    def outsider(self) -> bool:
        """Whether it needs nothing but the protected endpoint."""
        return not (self.learns_truth or self.unprotected)


#: The naive thief of the paper, and the one whom no defence that keeps the top-1 class stops.
NAIVE = Thief(attack="sample")
LABELS = Thief(attack="sample", labels_only=True)
UNPROTECTED = Thief(attack="sample", unprotected=True)
#: Recoveries whose solutions are matched as logits too, which is stronger with few queries.
MATCHED = ("analytic", "mixture")


#: What labels alone are worth in better hands. Each trick that is played with probabilities is
#: played with labels too: whoever is better than the best of them has made something of the rest.
LABEL_CONTROLS = (
    LABELS,
    *(
        Thief(attack="sample", labels_only=True, loss=name)
        for name, loss in LOSSES.items()
        if loss.of_labels
    ),
    *(Thief(attack="sample", labels_only=True, learn=name) for name in LEARNERS),
    *(Thief(attack=name, labels_only=True) for name, attack in ATTACKS.items() if attack.chooses),
)


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
        *LABEL_CONTROLS,
        *(
            Thief(attack="sample", loss=name)
            for name, loss in LOSSES.items()
            if name != NAIVE.loss and not loss.of_labels
        ),
        *(Thief(attack="sample", learn=name) for name in LEARNERS),
        *(
            Thief(attack="sample", recover=name)
            for name, recovery in RECOVERIES.items()
            if with_victim or not recovery.with_true_pairs
        ),
        *(Thief(attack="sample", recover=name, loss="logits") for name in MATCHED),
        *(Thief(attack=name, recover=way) for name in averaging for way in ("", "table")),
        *(Thief(attack=name) for name in others),
    ]
    if with_victim:
        thieves.append(UNPROTECTED)
        thieves += [Thief(attack=name, unprotected=True) for name in others]
    return thieves
