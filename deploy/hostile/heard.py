"""What a hostile client hears, looked through for what nobody may learn."""

import json
import re
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprocess.question import readings

#: How near an answer may come to the victim's own scores before it counts as them.
NEAR = 1e-4
_NUMBER = re.compile(rb"-?\d+\.?\d*(?:[eE][-+]?\d+)?")
#: Of an answer, how much is looked through for rows; a row of scores is far shorter.
_LOOKED_AT = 2**16


@dataclass(frozen=True)
class Secrets:
    """What must not come out."""

    names: tuple[str, ...] = ()  #: of inner models and tensors
    rows: NDArray[Any] = field(default_factory=lambda: np.empty((0, 2)))  #: raw, shape (n, K)

    def found_in(self, said: bytes, asked: bytes = b"") -> str | None:
        """Return what of it an answer holds, None if nothing but what was asked itself."""
        for name in self.names:
            if name.encode() in said and name.encode() not in asked:
                return f"the name {name}"
        if len(self.rows) and self._has_row(said[:_LOOKED_AT]):
            return "a raw row"
        return None

    def _has_row(self, said: bytes) -> bool:
        numbers = [np.array(_NUMBER.findall(said), dtype=np.float64)]
        with np.errstate(all="ignore"):
            for start in range(4):
                whole = (len(said) - start) // 4 * 4
                numbers.append(np.frombuffer(said[start : start + whole], "<f4").astype(np.float64))
            return any(self._among(one) for one in numbers)

    def _among(self, numbers: NDArray[np.float64]) -> bool:
        classes = self.rows.shape[1]
        if len(numbers) < classes:
            return False
        windows = np.lib.stride_tricks.sliding_window_view(numbers, classes)
        return any(bool((np.abs(windows - row).max(axis=1) <= NEAR).any()) for row in self.rows)


def raw(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return rows that only the victim itself would give: its logits and their softmax."""
    scores, softmax, _ = readings(np.asarray(logits, np.float64), -1)
    return np.concatenate([scores, softmax])


class Heard:
    """Collects from many threads."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets, self._lock = secrets, threading.Lock()
        self.kinds: Counter[str] = Counter()  #: how often each kind of answer came
        self.examples: dict[str, str] = {}  #: one of each kind
        self.leaks: Counter[str] = Counter()
        self.slowest_s = 0.0

    def answer(self, kind: str, said: bytes | str = b"", *, after_s: float = 0) -> None:
        """Take one: its status, and all that it says."""
        raw_answer = said.encode() if isinstance(said, str) else said
        leak = self._secrets.found_in(raw_answer)
        with self._lock:
            self.kinds[kind] += 1
            self.examples.setdefault(kind, raw_answer[:200].decode(errors="replace"))
            self.slowest_s = max(self.slowest_s, after_s)
            if leak is not None:
                self.leaks[leak] += 1

    def report(self) -> dict[str, Any]:
        """Return all of it, for JSON."""
        return {
            "answers": dict(self.kinds),
            "examples": self.examples,
            "leaks": dict(self.leaks),
            "slowest_s": round(self.slowest_s, 3),
        }


def merge(reports: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return several reports as one."""
    whole: dict[str, Any] = {"answers": Counter(), "examples": {}, "leaks": Counter()}
    for one in reports:
        whole["answers"].update(one["answers"])
        whole["leaks"].update(one["leaks"])
        whole["examples"] = one["examples"] | whole["examples"]
    return json.loads(json.dumps(whole))  # type: ignore[no-any-return]
