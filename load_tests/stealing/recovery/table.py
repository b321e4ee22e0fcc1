"""Recovery from a lookup table: undo a defence whose parameters are known.

The adversary protects the answers of a model of their own, the shadow, with a copy of the
defence, and looks every answer of the endpoint up among them. What stands beside the nearest is
taken for what the victim said.
"""

from collections.abc import Callable, Iterator

import numpy as np

from load_tests.asking.endpoint import Answers
from postprocess.arrays import Float64

#: Rows of the table's answers that are compared with all others at a time.
CHUNK = 256


def recover(answers: Answers, shadow: Answers, defence: Callable[[Answers], Answers]) -> Answers:
    """Return, for each answer, the shadow's probabilities whose protected form is nearest.

    Args:
        answers: the endpoint's, shape (n, K), rows sum to 1.
        shadow: probabilities of the adversary's own model, shape (m, K): the prior.
        defence: what the adversary takes the endpoint's to be, from probabilities to answers.
    """
    apart = compared(answers, defence(shadow).astype(np.float64))
    recovered: Answers = shadow[np.concatenate([distance.argmin(axis=1) for _, distance in apart])]
    return recovered


def compared(answers: Answers, table: Float64) -> Iterator[tuple[Float64, Float64]]:
    """Yield some of the answers at a time, and their squared distances to the table's rows.

    Each answer's own length, which none of its distances differ in, is left out of them.
    """
    lengths = (table**2).sum(axis=1)
    for chunk in np.array_split(answers.astype(np.float64), -(-len(answers) // CHUNK)):
        yield chunk, lengths - 2 * chunk @ table.T
