"""Texts as ids of their words and of pieces of them, and a network that reads those.

An id is a hash, so no vocabulary goes with the model: a client makes ids with these few lines.
"""

import re
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Ids run from 1 to this; 0 is padding.
BUCKETS = 2**14
#: Most ids of one text.
LONGEST = 512
#: Numbers that a word or piece is turned into.
_WIDTH = 64


def ids(texts: Iterable[str]) -> NDArray[np.int64]:
    """Return the ids of texts, shape (n, T), T that of the longest and at least 1; 0 is padding.

    The ids of all words, in lower case, then of all pieces of four letters of each ``<word>``: the
    CRC-32 of its UTF-8, modulo ``BUCKETS``, plus 1. Of a longer text, the first ``LONGEST``.
    """
    rows = []
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        pieces = [f"<{word}>"[i : i + 4] for word in words for i in range(len(word) - 1)]
        found = [zlib.crc32(token.encode()) % BUCKETS + 1 for token in words + pieces]
        rows.append(found[:LONGEST])
    made = np.zeros((len(rows), max([1, *map(len, rows)])), np.int64)
    for row, found in zip(made, rows, strict=True):
        row[: len(found)] = found
    return made


def network(_: tuple[int, ...], classes: int) -> Any:
    """Return a dense layer over the mean of what the ids stand for; padding counts for nothing.

    More layers make it no better, on 77 and 150 classes of short texts.
    """
    import keras
    from keras import layers, ops

    given = keras.Input((None,), dtype="int64", name="ids")
    # An id beyond would fail the whole batch that Triton has merged it into.
    known = ops.clip(given, 0, BUCKETS)
    there = ops.expand_dims(ops.cast(known > 0, "float32"), -1)
    summed = ops.sum(layers.Embedding(BUCKETS + 1, _WIDTH)(known) * there, axis=1)
    mean = summed / ops.maximum(ops.sum(there, axis=1), 1.0)
    return keras.Model(given, layers.Dense(classes, name="scores")(mean), name="tokens")
