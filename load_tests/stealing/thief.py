"""Who steals how: an attack that spends the queries, and what is made of the answers."""

from dataclasses import dataclass
from typing import Any

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
    def of_equation_2(self) -> bool:
        """Whether it takes the answers to be those of Reverse Sigmoid."""
        undoes = bool(self.recover) and RECOVERIES[self.recover].of_equation_2
        return undoes or LOSSES[self.loss].behind_defence

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
#: How a thief differs from the naive one.
Change = dict[str, Any]
_LEARN: tuple[Change, ...] = tuple({"learn": one} for one in LEARNERS)
#: Thieves of labels: of all that is done with probabilities, what needs none.
OF_LABELS: tuple[Change, ...] = tuple(
    {"labels_only": True, **change}
    for change in (
        {},
        {"loss": "smoothed"},
        {"loss": "spread"},
        *_LEARN,
        {"loss": "smoothed", "learn": "consistency"},
        {"loss": "spread", "learn": "consistency"},
        {"loss": "smoothed", "attack": "margin"},
        {"loss": "smoothed", "learn": "consistency", "attack": "margin"},
    )
)
#: Thieves of whatever is answered.
OF_ANSWERS: tuple[Change, ...] = (
    {},
    {"loss": "logits"},
    *_LEARN,
    {"loss": "logits", "learn": "consistency"},
    {"loss": "logits", "attack": "margin"},
    {"learn": "consistency", "attack": "margin"},
)
#: Thieves who know by which table or rounding an answer was made, or ask about near-duplicates.
DECODING: tuple[Change, ...] = (
    *OF_ANSWERS,
    {"loss": "logits", "recover": "bayes"},
    {"loss": "logits", "recover": "bayes", "learn": "consistency"},
    {"loss": "logits", "attack": "duplicates"},
)


def changed(change: Change) -> Thief:
    """Return the thief who differs so from the naive one."""
    return Thief(**{"attack": NAIVE.attack, **change})


def suite(*, with_victim: bool, with_table: bool = False) -> list[Thief]:
    """Return every thief of ``attack all``: the paper's, and the stronger ones since.

    Args:
        with_victim: whether the unprotected victim can be asked too; adds the comparison
            without a defence, and the recoveries that are fitted on true answers.
        with_table: whether the answers are calibrated ones, by a table that is known; adds those
            who make most of it, and of labels, and leaves out whom Reverse Sigmoid alone tells.
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
    if with_table:
        thieves = [one for one in thieves if not one.of_equation_2]
        thieves += map(changed, (*OF_LABELS, *DECODING))
    return list(dict.fromkeys(thieves))
