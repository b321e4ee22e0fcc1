"""Whether anybody but ``serve`` asks a model, told by Triton's counts.

A model that nobody asks needs no answer every second: its question costs Triton, the victim and
the defence some milliseconds, for each of many models all day. What changes it is seen without
one, see ``watched.Watched.unchanged``.
"""

from collections import Counter
from typing import Any

#: A model is asked in every round until nobody else has asked it for so many, then rarely.
QUIET_ROUNDS, RARE_ROUNDS = 5, 10


class Traffic:
    """The requests that each model got since the round before, our own left out."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._quiet: Counter[str] = Counter()  #: rounds without a request of others

    def look(self, client: Any, ours: Counter[str], *, timeout_s: float) -> None:
        """Take Triton's counts.

        Args:
            client: ``PlainHttp``, or tritonclient's.
            ours: how often each model was asked by us since the last look.
            timeout_s: of Triton's answer. Without one, all models count as asked by others.
        """
        from tritonclient.utils import InferenceServerException

        try:
            said = client.get_inference_statistics(client_timeout=timeout_s).model_stats
        except InferenceServerException:
            self._quiet.clear()
            return
        counts: Counter[str] = Counter()
        for one in said:
            counts[one.name] += one.inference_stats.success.count + one.inference_stats.fail.count
        for model, count in counts.items():
            quiet = count - self._counts.get(model, -1) == ours[model]
            self._quiet[model] = self._quiet[model] + 1 if quiet else 0
        self._counts = counts

    def is_due(self, model: str) -> bool:
        """Say whether the model is to be asked in this round."""
        return self._quiet[model] < QUIET_ROUNDS or self._quiet[model] % RARE_ROUNDS == 0
