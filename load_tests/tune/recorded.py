"""What a classifier says about a data set, recorded once."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporters.files.atomic_file import write_arrays, write_json
from exporters.graph import external_data
from exporters.graph.onnx_run import OnnxSession, one_line
from load_tests.data import tensors
from load_tests.data.drawn import Drawn, digest
from load_tests.data.rows import Rows, features
from load_tests.data.tensors import Taken
from load_tests.runs.run import Victim
from load_tests.runs.victims import ROWS as ROWS_FILE
from load_tests.runs.victims import Logits, is_trained
from postprocess.calibrated import side_log_odds
from postprocess.errors import InputError
from postprocess.scores import Scores, to_logits

#: Rows that are run at once.
ROWS = 256
#: What onnxruntime calls otherwise than NumPy does.
_TYPES = {"float": "float32", "double": "float64", "string": "object"}


@dataclass(frozen=True)
class OnnxVictim:
    """A classifier without its defence, as an ONNX graph that can be run."""

    path: Path  #: of its file; external data are found beside it
    graph: bytes  #: what is run
    output: str  #: the tensor of its scores
    probabilities: bool  #: what the scores are; else logits
    multi_label: bool = False  #: every score is a yes or no of its own

    def session(self) -> OnnxSession:
        """Return it in onnxruntime.

        Raises:
            InputError: its graph cannot be loaded.
        """
        return OnnxSession(self.path, graph=self.graph)


def record(classifier: OnnxVictim, drawn: Drawn, victims: Path, victim: Victim) -> Logits:
    """Return the classifier's logits for the test set, shape (n, K); keep them for the runs.

    Args:
        classifier: whom to ask.
        drawn: what about; the adversary's pool is asked about too.
        victims: the folder where the runs look for what they steal.
        victim: what the classifier is called there.

    Raises:
        InputError: the classifier does not take the rows or has no finite scores for them, or the
            folder holds another classifier's scores.
    """
    home = victims / victim.name
    about = {
        "classifier": external_data.digest_of(classifier.graph, classifier.path),
        "output": classifier.output,
        "data": digest(drawn.pool) + digest(drawn.test)
        if drawn.inputs
        else hashlib.sha256(features(drawn.test).tobytes()).hexdigest(),
    }
    if is_trained(victim, victims):
        if json.loads((home / "victim.json").read_text()) != about:
            raise InputError(
                f"{home}: holds the scores of another classifier or data set; give another --out"
            )
    else:
        ask = asker(classifier, drawn)
        logits = {"test": ask(drawn.test), "pool": ask(drawn.pool)}
        if drawn.inputs:
            learnt = {"pool": features(drawn.pool), "test": features(drawn.test)}
            labels = {} if drawn.labels is None else {"labels": drawn.labels}
            write_arrays(home / ROWS_FILE, **learnt, **labels)
        write_arrays(home / "logits.npz", **logits)
        write_json(home / "victim.json", about, indent=None)  # the last
    with np.load(home / "logits.npz") as stored:
        test: Logits = stored["test"]
    return test


def _taken(given: Any, where: str) -> Taken:
    kind = given.type.removeprefix("tensor(").removesuffix(")")
    try:
        dtype = np.dtype(_TYPES.get(kind, kind))
    except TypeError:
        raise InputError(f"{where}: input {given.name} is {given.type}") from None
    shape = tuple(size if isinstance(size, int) else -1 for size in given.shape)
    return Taken(given.name, kind, dtype, shape)


def asker(
    classifier: OnnxVictim, drawn: Drawn, *, to_learn: bool = True
) -> Callable[[Rows], Logits]:
    """Return what gives the classifier's logits for rows such as the drawn ones.

    Args:
        classifier: is asked.
        drawn: rows.
        to_learn: expect one choice among classes for each row, of which a thief learns; else a
            yes or no will do too, and several positions of a row, shape (n, ..., K).
    """
    opened = classifier.session()
    inputs = [_taken(one, str(classifier.path)) for one in opened.inputs]
    for rows in (drawn.pool, drawn.test):
        tensors.refuse_misfits(inputs, rows, named=drawn.inputs, where=str(classifier.path))
    where = f"{classifier.path}: output {classifier.output}"

    def run(rows: Rows) -> Any:
        feed = tensors.arrays(inputs, rows, where=str(classifier.path))
        for name, values in feed.items():
            if values.dtype == object:
                feed[name] = np.char.decode(values.astype(bytes), "utf-8").astype(object)
        try:
            return opened(feed, [classifier.output])[classifier.output]
        except Exception as error:
            raise InputError(
                f"{classifier.path}: does not take the rows: {one_line(error)}"
            ) from None

    def ask(rows: Rows) -> Logits:
        parts = []
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            scores = run(some)
            if scores.ndim == 1 and not to_learn:
                scores = scores[:, None]
            if (
                scores.ndim < 2
                or len(scores) != len(some)
                or not scores.size
                or (to_learn and (scores.ndim > 2 or scores.shape[1] < 2))
            ):
                what = "one choice among K >= 2 classes" if to_learn else "scores"
                raise InputError(
                    f"{where}: expected {what} for each of {len(some)} rows, got scores of shape "
                    f"{scores.shape}"
                )
            parts.append(_logits(classifier, scores, where))
        return np.concatenate(parts)

    return ask


def _logits(classifier: OnnxVictim, scores: Scores, where: str) -> Logits:
    """Return finite logits of scores, of any shape (..., K)."""
    rows = scores.reshape(-1, scores.shape[-1])
    if classifier.multi_label or rows.shape[1] == 1:
        odds = side_log_odds(rows, probabilities=classifier.probabilities)
        logits = np.minimum(odds, 1e4).astype(np.float32)
    else:
        logits = to_logits(rows, probabilities=classifier.probabilities)
    # What the runs take cannot hold the logarithm of 0.
    logits = np.maximum(logits, -np.float32(1e4))
    if not (np.isfinite(rows).all() and np.isfinite(logits).all()):
        raise InputError(
            f"{where}: is not finite for all of the rows; leave out those for which it is NaN or "
            "infinite"
        )
    return logits.reshape(scores.shape)
