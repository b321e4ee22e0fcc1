"""What the defence counts, on Triton's /metrics.

Every call of Triton's metrics costs up to 0.1 ms, so counts gather here and go out at most once
a second, with the requests of that second or the next. The size of the perturbation is measured
on a sample: ``MEASURE_ROWS`` rows of a batch, and only of so many batches that measuring takes
``MEASURE_SHARE`` of the time that the step takes.
"""

import math
import time
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from postprocess.parameters import Parameters
from postprocess.perturbation import perturbation
from postprocess.postprocessor import ProtectedRows
from postprocess.scores import Scores

PUBLISH_EVERY_S = 1.0
MEASURE_SHARE = 0.02
MEASURE_ROWS = 64

COUNTERS = {
    "requests": "Requests that reached the defence",
    "rows": "Rows that were protected",
    "capped_rows": "Rows in which the accuracy constraint lowered beta",
    "refused_requests": "Requests refused because of their scores, answered with an error",
    "refused_rows": "Rows of these",
    "mistaken_requests": "Those of the refused requests whose scores are not of the kind that "
    "config.pbtxt says: probabilities for logits, or the other way round",
    "suspect_rows": "Rows that look like probabilities where logits are said, refused or not",
    "failed_requests": "Requests that the defence failed on, answered with an error",
    "measured_rows": "Rows whose perturbation was measured: a sample of all rows",
    "perturbation_l1": "Sum over the measured rows of |y - yhat|, 0 to 2 each",
    "perturbation_kl_nats": "Sum over the measured rows of KL(y || yhat), in nats",
    "top1_margin": "Sum over the measured rows of the top probability less the next",
}
GAUGES = {
    "config_not_in_force": "1 if config.pbtxt is no longer what this instance was loaded with",
    "kernel": "1 if the compiled kernel makes the answers, 0 if NumPy does, which takes longer",
}


class Metrics:
    """The counts of one instance of the defence: ``add`` gathers, ``publish`` sends."""

    def __init__(self, model: str, version: str, config: Path, *, native: bool) -> None:
        """Register the metrics with Triton.

        Args:
            model: the defence's name, a label.
            version: its version, a label.
            config: its config.pbtxt, watched for edits that are not in force.
            native: whether the kernel answers, and not NumPy.
        """
        labels = {"model": model, "version": version}
        self._sums = dict.fromkeys(COUNTERS, 0.0)
        self._families: list[Any] = []  # Triton drops a family that nobody holds
        self._counters = {
            name: self._register(f"{name}_total", text, pb_utils.MetricFamily.COUNTER, labels)
            for name, text in COUNTERS.items()
        }
        gauges = {
            name: self._register(name, text, pb_utils.MetricFamily.GAUGE, labels)
            for name, text in GAUGES.items()
        }
        gauges["kernel"].set(float(native))
        self._not_in_force = gauges["config_not_in_force"]
        self._config, self._loaded = config, _content(config)
        self._last_not_in_force = 0.0
        self._not_in_force.set(0.0)
        self._next_publish = 0.0
        self._began = time.perf_counter()
        #: What measuring may take, saved up from the steps' time; and what it took last.
        self._credit_s = self._cost_s = 0.0

    def _register(self, name: str, description: str, kind: Any, labels: dict[str, str]) -> Any:
        """Return a metric of a family of its own."""
        family = pb_utils.MetricFamily(
            name=f"reverse_sigmoid_{name}", description=description, kind=kind
        )
        self._families.append(family)
        return family.Metric(labels=labels)

    def begin(self) -> None:
        """Note that a step begins."""
        self._began = time.perf_counter()

    def add(self, name: str, amount: float = 1) -> None:
        """Add to one of ``COUNTERS``."""
        self._sums[name] += amount

    def count(self, parameters: Parameters, scores: Scores, protected: ProtectedRows) -> None:
        """Count a protected batch and, if the step's time allows it, measure some of it.

        Args:
            parameters: of the defence.
            scores: the victim's, shape (rows, K).
            protected: what became of them.
        """
        rows = len(scores)
        self._sums["rows"] += rows
        self._sums["capped_rows"] += protected.capped_rows
        now = time.perf_counter()
        self._credit_s += MEASURE_SHARE * (now - self._began)
        self._began = now
        if self._credit_s < self._cost_s or not rows:
            return
        sample = slice(0, None, -(-rows // MEASURE_ROWS))
        size = perturbation(scores[sample], protected.probabilities[sample], parameters)
        self._sums["measured_rows"] += len(size.l1)
        self._sums["perturbation_l1"] += float(size.l1.sum())
        self._sums["perturbation_kl_nats"] += float(size.kl_nats.sum())
        self._sums["top1_margin"] += float(size.top1_margin.sum())
        self._cost_s = time.perf_counter() - now
        self._credit_s = 0.0

    def publish(self, *, now: bool = False) -> None:
        """Send what was added since the last time, at most once a second unless ``now``."""
        clock = time.monotonic()
        if clock < self._next_publish and not now:
            return
        self._next_publish = clock + PUBLISH_EVERY_S
        for name, amount in self._sums.items():
            # An invalid amount would abort the whole server.
            if math.isfinite(amount) and amount > 0:
                self._counters[name].increment(amount)
            self._sums[name] = 0.0
        not_in_force = float(_content(self._config) != self._loaded)
        if not_in_force != self._last_not_in_force:
            self._not_in_force.set(not_in_force)
            self._last_not_in_force = not_in_force


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
