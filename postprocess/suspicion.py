"""Whether a defence that was told logits is fed probabilities: a judgement of many rows.

It happens in silence: a quantised graph protected by mistake, a retrained version that kept its
Softmax, an edited config.pbtxt. Nothing breaks, and the answers teach a thief as well as none
of this would. One row proves nothing, since a row of logits may look like probabilities by
chance; a row of real logits seldom does, and a Softmax makes nothing else.

So a level is kept. A row that looks like probabilities and is not the one before it adds 1, any
other finite row but one of zeros takes 1 away, and from ``enough`` on the rows that look so, and
no others, are refused until the level has fallen again. What an adversary can do about it:

- Repeat a row, or let a health check do so: it counts once until another comes between.
- Send what makes the victim say NaN: such a row is refused and counts for nothing.
- Send what makes a Softmax of 8 bits and hundreds of classes round every entry to 0: such a row
  says nothing of either kind, and counts for nothing.
- Mix in rows that do not look so, if the victim has any: half of what he asks, and an operator
  sees the other half on /metrics. A Softmax has none.
- Make honest clients be refused: only those whose rows look like probabilities are, one or two
  in a hundred where there are two or three classes and logits near 0.5, else none at all. He
  cannot aim either: answers do not tell the sum of the logits.

A single yes or no looks like a probability whenever its logit lies in [0, 1], and that can be
aimed at. There so many have to come in a row, and one outside takes all away: a Sigmoid has
none. Whoever says yes to every row, and never with more than 73 %, is taken for one; his way
out is a graph that ends in its Sigmoid, and ``scores`` probabilities.

Each instance judges what it sees, from its own start on.
"""

import numpy as np
from numpy.typing import NDArray

from postprocess.scores import Scores, looks_like_probabilities

#: How the answer to a request ends whose scores are not of the kind that config.pbtxt says. A
#: restart does not mend that, and would forget what was seen.
MISTAKEN = "the model has to be set up anew, see the server's log"

#: Rows that look like probabilities, less those that do not, from which they are refused. The
#: fewer classes there are, the more rows of logits look so by chance; of two, margins that mirror
#: each other around 1/2 do where they are small.
ENOUGH, ENOUGH_OF_FEW, ENOUGH_OF_TWO, ENOUGH_SINGLE = 4, 8, 16, 64
FEW = 4


def enough(classes: int, *, single: bool) -> int:
    """Return how many rows of K classes have to look like probabilities."""
    if single or classes == 1:
        return ENOUGH_SINGLE
    if classes == 2:
        return ENOUGH_OF_TWO
    return ENOUGH_OF_FEW if classes <= FEW else ENOUGH


class Suspicion:
    """What the rows of one instance of a defence have looked like so far."""

    def __init__(self) -> None:
        self.level = 0  #: 0 while nothing looks like probabilities
        self._last: Scores = np.empty(0, np.float32)  #: row that looked like probabilities

    def judge(self, scores: Scores, *, single: bool) -> tuple[NDArray[np.bool_], bool]:
        """Return which rows look like probabilities, shape (rows,), and whether to refuse them.

        Args:
            scores: finite, shape (rows, K), said to be logits.
            single: every entry is a yes or no of its own.
        """
        likely = looks_like_probabilities(scores, single=single)
        found = scores[likely]
        wanted = enough(scores.shape[1], single=single)
        self._move(self._changes(found), _tell(scores[~likely]), wanted)
        return likely, self.level >= wanted

    def calm(self, scores: Scores, *, single: bool) -> None:
        """Take note of rows, shape (rows, K), none of which looks like probabilities."""
        self._move(0, _tell(scores), enough(scores.shape[1], single=single))

    def _changes(self, found: Scores) -> int:
        """Return how many rows are not the one before, the last that was found included."""
        if not len(found):
            return 0
        first = self._last.shape != found.shape[1:] or bool((self._last != found[0]).any())
        self._last = found[-1].copy()
        return int(first) + int(np.count_nonzero((found[1:] != found[:-1]).any(axis=1)))

    def _move(self, changes: int, others: int, wanted: int) -> None:
        weight = 2 * wanted if wanted == ENOUGH_SINGLE else 1
        self.level = min(max(0, self.level + changes - weight * others), 2 * wanted)


def _tell(others: Scores) -> int:
    """Return how many rows speak for logits: all but those of zeros."""
    return int(np.count_nonzero(others.any(axis=1)))
