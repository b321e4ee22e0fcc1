"""An end-to-end question to a protected model, with a known answer.

Triton goes on saying READY when a model's process is dead, so that only an answer shows that
the model works, and only a comparison that it is protected. Asked is the question that stands
beside the model, see ``postprocess.question``, or else one made up.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.repository.protected import ProtectedModel
from deploy.supervision.questions import (
    PATIENCE_S,
    ProbeError,
    Tensors,
    arrays,
    candidates,
    infer,
    probe_error,
    synthetic_scores,
)
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.question import Question, WrongAnswerError, readings
from postprocess.ready import compare, repeats

#: Same question, same configuration: how far apart two answers of one defence may be. The
#: victim's last digits differ with the batch that Triton happened to merge.
TOLERANCE = 1e-3


class RawAnswerError(ProbeError):
    """The answer is the victim's own scores."""


class ChangedAnswerError(ProbeError):
    """The answer of a deterministic defence is a protected row, but not the known one."""


class Probe:
    """One protected model's question and its known answer."""

    #: The question that stands beside the model, None where there is none.
    kept: Question | None = None

    def __init__(self, protected: ProtectedModel, *, timeout_s: float) -> None:
        """Say whom to ask, and how long an answer may take; ``choose`` has to find the question."""
        self.protected = protected
        self._timeout_s, self._shortest_s = PATIENCE_S, timeout_s
        self.model = protected.name
        self._output: str | None = protected.output
        self.inputs: Tensors = {}
        self._raw: list[NDArray[np.float64]] = []
        self._axis = -1  #: of the classes
        self.deterministic = True
        self.latency_ms = 0.0
        #: Where the question comes from: "kept", "made up", "defence alone"; "none" of none.
        self.question = "none"

    @property
    def blind(self) -> bool:
        """Whether nothing can be asked, so that only the models' processes are watched."""
        return self.question == "none"

    @property
    def like_raw(self) -> bool:
        """Whether the known answer is the victim's own, as far as that could be asked."""
        return any(_near(self._known, raw, 1e-4) for raw in self._raw)

    def take(self, kept: Question | None) -> None:
        """Ask another question that is kept from the next ``learn`` on; None: as before."""
        if kept is not None:
            self.kept, self.model, self._output = kept, self.protected.name, self.protected.output
            self.question, self.inputs = "kept", arrays(kept)

    def choose(self, client: Any, in_force: Mapping[str, str]) -> list[str]:
        """Choose a question that the model answers, learn the answer, return warnings.

        Best is the one that is kept, then one to which the protected answer differs from the
        victim's own. Where the model takes none, its defence alone is asked from now on; where
        there is none to be asked, ``blind`` is true.

        Raises:
            RawAnswerError: the answer to the kept question is one that no defence has made.
            ProbeError: nothing answers at all.
        """
        warnings: list[str] = []
        refused = ""
        if self.kept is not None:
            self.question, self.inputs = "kept", arrays(self.kept)
            try:
                self.learn(client, in_force)
                return warnings if self.distinct else [*warnings, self._cannot_tell()]
            except RawAnswerError:
                raise
            except ProbeError as error:
                warnings.append(
                    f"{self.model}: the question kept beside it does not work ({error}); "
                    "another is made up; protect it again"
                )
                self.kept = None
        accepted = []
        self.question = "made up"
        for inputs in candidates(client, self.model):
            self.inputs = inputs
            try:
                self.learn(client, in_force)
            except ProbeError as error:
                refused = str(error)
                continue
            if self.distinct:
                return warnings
            accepted.append(inputs)
        if accepted:
            self.inputs = accepted[0]
            self.learn(client, in_force)
            return [*warnings, self._cannot_tell()]
        return [*warnings, self._settle_for_less(client, in_force, refused)]

    def _cannot_tell(self) -> str:
        return f"{self.model}: its probe cannot tell protected answers from raw ones"

    def _settle_for_less(self, client: Any, in_force: Mapping[str, str], refused: str) -> str:
        """Ask the defence alone, or nobody; return what that means."""
        said = f"{self.protected.name}: no probe input works ({refused}); "
        cure = "; protect it again, with rows of yours in --sample, for a question that works"
        if self.protected.fused:
            self.question = "none"
            return f"{said}UNWATCHED except for its process{cure}"
        self.question = "defence alone"
        self.model, self._output = self.protected.defence, None
        self.inputs = synthetic_scores(client, self.model)
        self.learn(client, in_force)
        return f"{said}only {self.model} is watched, with made-up scores{cure}"

    def learn(self, client: Any, in_force: Mapping[str, str]) -> None:
        """Take what is answered now for the known answer.

        Raises:
            RawAnswerError: the answer to the kept question is one that no defence has made.
            ProbeError: there is no answer, or it is no row of finite numbers.
        """
        if self.blind:
            self.check(client)
            return
        self._timeout_s = PATIENCE_S
        answers = [self._ask(client) for _ in range(3)]
        self._known = answers[0]
        parameters = _parameters(in_force)
        self._axis = -1 if parameters is None else parameters.class_axis
        self._sums_to_1 = self._known.shape[self._axis] > 1 and _sums_to_1(self._known, self._axis)
        self.deterministic = all(_near(answer, self._known) for answer in answers)
        self._raw = self._ask_victim(client)
        self.distinct = bool(self._raw) and not self.like_raw
        self._bounds = self._learn_bounds(answers, in_force)
        # Slow models get more time than was asked for.
        self._timeout_s = max(self._shortest_s, 5 * self.latency_ms / 1000)

    def _learn_bounds(self, answers: list[Any], in_force: Mapping[str, str]) -> bool:
        """Judge answers by the kept question; return whether its bounds hold from now on."""
        if self.kept is None or self.question != "kept":
            return False
        looks, answer = self.kept.looks, answers[0]
        parameters = _parameters(in_force)
        # A model that tells no defence at all has to answer as the one that was kept.
        known = parameters is None or parameters == self.kept.defence
        try:
            looks.judge(answer, bounds=known)
            if not looks.repeats and all(np.array_equal(answer, one) for one in answers[1:]):
                raise WrongAnswerError("answered alike again and again", raw=True)
        except WrongAnswerError as error:
            if self._computed(answer, parameters):
                return False  # another victim than the one that was asked then
            raise (RawAnswerError if error.raw else ProbeError)(str(error)) from None
        self.distinct |= known and looks.tells_raw
        return known

    def _computed(self, answer: NDArray[np.float64], parameters: Parameters | None) -> bool:
        """Say whether the answer is what the defence makes of the victim's scores of now."""
        if parameters is None or parameters.defense == "none" or not self._raw:
            return False
        axis = -1 if self.kept is None else self.kept.looks.axis
        try:
            compare(answer, self._raw[0].astype(np.float32), parameters, axis=axis)
        except (WrongAnswerError, InputError):
            return False
        return repeats(parameters)

    def check(self, client: Any) -> None:
        """Ask once.

        Raises:
            RawAnswerError: the victim's own scores were answered.
            ChangedAnswerError: another answer than the known one.
            ProbeError: an error, no answer in time, or no protected row.
        """
        if self.blind:
            self._look(client)
            return
        answer = self._ask(client)
        if answer.shape != self._known.shape:
            raise ProbeError(f"answered with shape {answer.shape}, expected {self._known.shape}")
        if not self.like_raw and any(_near(answer, raw, 1e-5) for raw in self._raw):
            raise RawAnswerError("answered with the victim's own scores")
        if self._bounds and self.kept is not None:
            try:
                self.kept.looks.judge(answer)
            except WrongAnswerError as error:
                raise (RawAnswerError if error.raw else ProbeError)(str(error)) from None
        if self._sums_to_1 and not _sums_to_1(answer, self._axis):
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
            if self.blind:
                self._look(client)
            elif model == self.model:
                infer(client, model, self.inputs, timeout_s=self._timeout_s)
            else:
                infer(client, model, candidates(client, model)[0], timeout_s=self._timeout_s)
        except ProbeError as error:
            return {model: error}
        return {}

    def _look(self, client: Any) -> None:
        """See what can be seen without a question: whether Triton calls the model ready."""
        from tritonclient.utils import InferenceServerException

        try:
            if not client.is_model_ready(self.model, client_timeout=self._timeout_s):
                raise ProbeError("Triton does not call it ready")
        except InferenceServerException as error:
            raise probe_error(error, self._timeout_s) from None

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
        return readings(scores, self._axis)


def _parameters(strings: Mapping[str, str]) -> Parameters | None:
    try:
        return Parameters.from_strings(strings, where="")
    except InputError:
        return None


def _floats(result: Any, output: str | None) -> NDArray[np.float64]:
    values = result.as_numpy(output or result.get_response().outputs[0].name)
    if values is None or values.dtype.kind not in "fiu":
        raise ProbeError(f"answered without numbers in {output}")
    return np.asarray(values, np.float64)


def _near(one: NDArray[Any], other: NDArray[Any], tolerance: float = TOLERANCE) -> bool:
    return one.shape == other.shape and bool(np.abs(one - other).max() <= tolerance)


def _sums_to_1(rows: NDArray[np.float64], axis: int) -> bool:
    return bool((np.abs(rows.sum(axis=axis) - 1) <= 1e-3).all())
