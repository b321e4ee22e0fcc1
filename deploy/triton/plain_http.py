"""What is asked of Triton all day, over HTTP: a call over gRPC wakes some 25 threads, this few."""

import http.client
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any


class PlainHttp:
    """Triton's counts and states, over one connection that is made anew when it breaks."""

    def __init__(self, host: str, port: int, headers: Mapping[str, str]) -> None:
        """Say where Triton listens, and what every request has to carry."""
        self._headers = dict(headers)
        self._connection = http.client.HTTPConnection(host, port)

    def get_inference_statistics(self, *, client_timeout: float) -> Any:
        """Return the counts of all models, as tritonclient's gRPC client does.

        Raises:
            InferenceServerException: Triton did not answer in these seconds.
        """
        text = self._ask("GET", "/v2/models/stats", client_timeout)
        return json.loads(text, object_hook=lambda one: SimpleNamespace(**one))

    def repository_index(self, *, client_timeout: float) -> bytes:
        """Return the state of every model version, in Triton's own words.

        Raises:
            InferenceServerException: Triton did not answer in these seconds.
        """
        return self._ask("POST", "/v2/repository/index", client_timeout)

    def close(self) -> None:
        """Close the connection; another question makes a new one."""
        self._connection.close()

    def _ask(self, method: str, path: str, timeout_s: float) -> bytes:
        from tritonclient.utils import InferenceServerException

        kept = self._connection.sock is not None
        try:
            self._connection.timeout = timeout_s
            if kept:
                self._connection.sock.settimeout(timeout_s)
            self._connection.request(method, path, headers=self._headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if kept and not isinstance(error, TimeoutError):  # closed while nobody asked
                return self._ask(method, path, timeout_s)
            raise InferenceServerException(f"{path}: {type(error).__name__}: {error}") from None
        if answer.status != http.client.OK:
            raise InferenceServerException(f"{path}: {answer.status} {answer.reason}")
        return text
