"""An end-to-end question to a protected model, with a known answer.

Triton goes on saying READY when a model's process is dead, so that only an answer shows that
the model works, and only a comparison that it is protected.
"""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.protected import Protected
from deploy.questions import PATIENCE_S, ProbeError, Tensors, candidates, infer, synthetic_scores

#: Same question, same configuration: how far apart two answers of one defence may be. The
#: victim's last digits differ with the batch that Triton happened to merge.
TOLERANCE = 1e-3


class RawAnswerError(ProbeError):
    """The answer is the victim's own scores."""


class ChangedAnswerError(ProbeError):
    """The answer of a deterministic defence is a protected row, but not the known one."""


class Probe:
    """One protected model's question and its known answer."""

    def __init__(self, protected: Protected, *, timeout_s: float) -> None:
        """Say what to ask; ``choose`` has to find the question."""
        self.protected = protected
        self._timeout_s, self._shortest_s = PATIENCE_S, timeout_s
        self.model = protected.name
        self._output: str | None = protected.output
        self.inputs: Tensors = {}
        self._raw: list[NDArray[np.float64]] = []
        self.deterministic = True
        self.latency_ms = 0.0

    def choose(self, client: Any) -> list[str]:
        """Choose a question that the ensemble answers, learn the answer, return warnings.

        Best is a question to which the protected answer differs from the victim's own. Where
        the ensemble takes none, the defence alone is asked from now on.

        Raises:
            ProbeError: the defence alone does not answer either.
        """
        refused, accepted = "", []
        for inputs in candidates(client, self.model):
            self.inputs = inputs
            try:
                self.learn(client)
            except ProbeError as error:
                refused = str(error)
                continue
            if self.distinct:
                return []
            accepted.append(inputs)
        if accepted:
            self.inputs = accepted[0]
            self.learn(client)
            return [f"{self.model}: its probe cannot tell protected answers from raw ones"]
        if self.protected.fused:
            raise ProbeError(f"no probe input works ({refused})")
        self.model, self._output = self.protected.defence, None
        self.inputs = synthetic_scores(client, self.model)
        self.learn(client)
        return [
            f"{self.protected.name}: no probe input works ({refused}); "
            f"only {self.model} is watched, with made-up scores"
        ]

    def learn(self, client: Any) -> None:
        """Take what is answered now for the known answer.

        Raises:
            ProbeError: there is no answer, or it is no row of finite numbers.
        """
        self._timeout_s = PATIENCE_S
        answers = [self._ask(client) for _ in range(3)]
        self._known = answers[0]
        self._sums_to_1 = self._known.shape[-1] > 1 and _sums_to_1(self._known)
        self.deterministic = all(_near(answer, self._known) for answer in answers)
        self._raw = self._ask_victim(client)
        self.distinct = not any(_near(self._known, raw, 1e-4) for raw in self._raw)
        # Slow models get more time than was asked for.
        self._timeout_s = max(self._shortest_s, 5 * self.latency_ms / 1000)

    def check(self, client: Any) -> None:
        """Ask once.

        Raises:
            RawAnswerError: the victim's own scores were answered.
            ChangedAnswerError: another answer than the known one.
            ProbeError: an error, no answer in time, or no protected row.
        """
        answer = self._ask(client)
        if answer.shape != self._known.shape:
            raise ProbeError(f"answered with shape {answer.shape}, expected {self._known.shape}")
        if self.distinct and any(_near(answer, raw, 1e-5) for raw in self._raw):
            raise RawAnswerError("answered with the victim's own scores")
        if self._sums_to_1 and not _sums_to_1(answer):
            raise ProbeError("answered with rows that do not sum to 1")
        if self.deterministic and not _near(answer, self._known):
            raise ChangedAnswerError("answered otherwise with the same configuration")

    def dead_models(self, client: Any) -> dict[str, ProbeError]:
        """Return the models of the ensemble that do not answer by themselves, and how."""
        dead = {}
        victim, defence = self.protected.victim, self.protected.defence
        questions: dict[str, Tensors] = {}
        if self.protected.fused:
            return self._dead_fused(client)
        if victim is not None and self.model == self.protected.name:
            given = self.inputs
            questions[victim.model] = {name: given[of] for name, of in victim.inputs.items()}
        try:
            questions[defence] = synthetic_scores(client, defence)
            for model, inputs in questions.items():
                try:
                    infer(client, model, inputs, timeout_s=self._timeout_s)
                except ProbeError as error:
                    dead[model] = error
        except ProbeError as error:  # not even asked what its tensors are
            dead[defence] = error
        return dead

    def _dead_fused(self, client: Any) -> dict[str, ProbeError]:
        """Return the fused model if its process does not answer; other steps are not asked."""
        model = self.protected.defence
        try:
            infer(client, model, candidates(client, model)[0], timeout_s=self._timeout_s)
        except ProbeError as error:
            return {model: error}
        return {}

    def answered(self, client: Any) -> int | None:
        """Return how many requests the model has answered, None if Triton does not say."""
        from tritonclient.utils import InferenceServerException

        try:
            statistics = client.get_inference_statistics(self.model, client_timeout=5)
        except InferenceServerException:
            return None
        return int(sum(one.inference_stats.success.count for one in statistics.model_stats))

    def _ask(self, client: Any) -> NDArray[np.float64]:
        start = time.monotonic()
        result = infer(client, self.model, self.inputs, timeout_s=self._timeout_s)
        self.latency_ms = (time.monotonic() - start) * 1000
        answer = _floats(result, self._output)
        if answer.size == 0 or not np.isfinite(answer).all():
            raise ProbeError("answered with numbers that are not finite")
        return answer

    def _ask_victim(self, client: Any) -> list[NDArray[np.float64]]:
        """Return what an unprotected answer may look like: scores, softmax, sigmoid."""
        victim = self.protected.victim
        if victim is None or self.model != self.protected.name:
            return []
        inputs = {name: self.inputs[of] for name, of in victim.inputs.items()}
        scores = _floats(infer(client, victim.model, inputs, timeout_s=self._timeout_s),
                         victim.output)  # fmt: skip
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        sigmoid = 1 / (1 + np.exp(-np.clip(scores, -700, 700)))
        return [scores, powers / powers.sum(axis=-1, keepdims=True), sigmoid]


def _floats(result: Any, output: str | None) -> NDArray[np.float64]:
    values = result.as_numpy(output or result.get_response().outputs[0].name)
    if values is None or values.dtype.kind not in "fiu":
        raise ProbeError(f"answered without numbers in {output}")
    return np.asarray(values, np.float64)


def _near(one: NDArray[Any], other: NDArray[Any], tolerance: float = TOLERANCE) -> bool:
    return one.shape == other.shape and bool(np.abs(one - other).max() <= tolerance)


def _sums_to_1(rows: NDArray[np.float64]) -> bool:
    return bool((np.abs(rows.sum(axis=-1) - 1) <= 1e-3).all())
