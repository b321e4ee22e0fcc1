"""Keyed jitter of beta and gamma: a hardened mode (``key_file``).

Who knows beta and gamma can invert the perturbation. With a key every answer has its own: beta
for the row, gamma for each class, derived by HMAC from the victim's quantised probabilities.
They follow from the answer and not from the query, so the same query always gets the same
answer, and near-duplicates of it, whose probabilities round to the same, get the same beta and
gamma: there is nothing that averaging would take away.
"""

import hashlib
import hmac
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprocess.pseudo_logits import Float32

#: What probabilities are rounded to before they are hashed. Coarse, because each step over a
#: boundary draws anew.
QUANTUM = 0.1


def uniform(key: bytes, purpose: bytes, messages: NDArray[np.integer[Any]], count: int) -> Float32:
    """Return numbers in [0, 1) that only the key's holder can tell, shape (rows, count).

    Args:
        key: the secret.
        purpose: keeps the streams of different uses apart.
        messages: shape (rows, n); rows that are equal get equal numbers.
        count: numbers for a row.
    """
    drawn = bytearray()
    for message in np.ascontiguousarray(messages):
        seed = hmac.digest(key, purpose + message.tobytes(), "sha256")
        drawn += hashlib.shake_256(seed).digest(2 * count)
    numbers = np.frombuffer(bytes(drawn), "<u2").reshape(len(messages), count)
    return numbers.astype(np.float32) / np.float32(2**16)


def jitter(
    y: Float32, top: NDArray[np.intp], *, key: bytes, share: float
) -> tuple[NDArray[np.float64], Float32]:
    """Return the factors of beta, shape (rows,), and of gamma, shape (rows, K).

    Args:
        y: the victim's probabilities, shape (rows, K).
        top: the top class of each row, whose gamma stays: its factor is 1.
        key: the secret.
        share: how far a factor may be from 1, 0 to 0.9. That of beta is never below it: a
            lower beta would leave the top class a wider gap.
    """
    rounded = np.rint(y / np.float32(QUANTUM)).astype(np.uint8)
    messages = np.concatenate([top[:, None].astype("<i4").view(np.uint8), rounded], axis=1)
    drawn = np.float32(share) * uniform(key, b"jitter", messages, y.shape[1] + 1)
    of_gamma = 1 - share + 2 * drawn[:, 1:]
    of_gamma[np.arange(len(y)), top] = 1
    return 1 + drawn[:, 0].astype(np.float64), of_gamma
