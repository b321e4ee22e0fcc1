"""Whether a protected ensemble answers as it should: ``python -m postprocess.ready MODEL``.

A health check for containers: Triton goes on saying READY when the process of a Python model is
dead. The victim is asked for its scores, the defence's parameters are read from the server, the
expected answer is computed here, and the ensemble has to give it. Needs NumPy alone.
"""

import argparse
import json
import os
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprocess.errors import ReverseSigmoidError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

#: Header of Triton's restricted APIs, and the variable that names the file of its value.
KEY_HEADER, KEY_FILE = "triton-key", "TRITON_KEY_FILE"
#: How far the ensemble may be from what is computed here: the victim's last digits may differ.
TOLERANCE = 1e-3


class NotReadyError(ReverseSigmoidError):
    """The ensemble does not answer, or not as it should."""


class Triton:
    """Triton's HTTP endpoint on this host."""

    def __init__(self, url: str, key: str | None, timeout_s: float) -> None:
        self._url, self._timeout_s = url.rstrip("/"), timeout_s
        self._headers = {} if key is None else {KEY_HEADER: key}
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def ask(self, path: str, body: Any = None) -> Any:
        """Return the JSON that a path answers.

        Raises:
            NotReadyError: it answers with an error, or not in time.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310
            f"{self._url}/v2/models/{path}", data=data, headers=self._headers
        )
        try:
            with self._open(request, timeout=self._timeout_s) as response:
                return json.load(response)
        except (OSError, ValueError) as error:
            raise NotReadyError(f"{path}: {error}") from None

    def infer(self, model: str, inputs: list[dict[str, Any]], output: str) -> NDArray[np.float64]:
        """Return one output of a model, in float64."""
        answer = self.ask(f"{model}/infer", {"inputs": inputs, "outputs": [{"name": output}]})
        (tensor,) = answer["outputs"]
        values = np.array(tensor["data"], np.float64)
        return values.reshape(tensor["shape"])


def check(triton: Triton, model: str) -> None:
    """Return if the ensemble gives the answer that its own configuration asks for.

    A defence that answers at random, or keyed on its input, is checked for protected rows alone.

    Raises:
        NotReadyError: it does not.
    """
    steps = triton.ask(f"{model}/config")["ensemble_scheduling"]["step"]
    defence = steps[-1]
    (tensor,) = defence["input_map"].values()
    (victim,) = (step for step in steps if tensor in step["output_map"].values())
    (victim_output,) = (name for name, to in victim["output_map"].items() if to == tensor)
    (answered,) = defence["output_map"].values()
    config = triton.ask(f"{defence['model_name']}/config")
    strings = {name: said["string_value"] for name, said in config["parameters"].items()}
    parameters = Parameters.from_strings(strings, where=defence["model_name"])
    metadata = triton.ask(model)
    question = [_row(one) for one in metadata["inputs"]]
    given = {one["name"]: one for one in question}
    inner = [given[of] | {"name": name} for name, of in victim["input_map"].items()]
    raw = triton.infer(victim["model_name"], inner, victim_output)
    answer = triton.infer(model, question, answered)
    _judge(answer, raw, parameters)


def _judge(answer: NDArray[np.float64], raw: NDArray[np.float64], parameters: Parameters) -> None:
    if answer.shape != raw.shape or not np.isfinite(answer).all():
        raise NotReadyError(f"answered with shape {answer.shape}, expected {raw.shape}")
    if not _repeats(parameters):
        if np.abs(answer - raw).max() <= TOLERANCE:
            raise NotReadyError("answered with the victim's own scores")
        return
    expected = Postprocessor(parameters)(raw.astype(np.float32))
    step = 0.0 if parameters.decimals is None else 10.0**-parameters.decimals
    if np.abs(answer - expected).max() > TOLERANCE + step:
        raise NotReadyError("answered otherwise than its own configuration asks for")


def _repeats(parameters: Parameters) -> bool:
    """Whether the same scores get the same answer here as in the server, without its key."""
    return parameters.defense in ("reverse_sigmoid", "sine", "none") and not parameters.key_file


def _row(tensor: Mapping[str, Any]) -> dict[str, Any]:
    shape = [max(1, int(size)) for size in tensor["shape"]]
    nothing = "" if tensor["datatype"] == "BYTES" else 0
    return {
        "name": tensor["name"],
        "datatype": tensor["datatype"],
        "shape": shape,
        "data": [nothing] * int(np.prod(shape)),
    }


def main() -> int:
    """Return 0 if every model named is ready, 1 with a line on stderr if one is not."""
    parser = argparse.ArgumentParser(prog="python -m postprocess.ready")
    parser.add_argument("model", nargs="+", help="public name of a protected ensemble")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="Triton's HTTP endpoint")
    parser.add_argument("--timeout-seconds", type=float, default=5)
    arguments = parser.parse_args()
    key = os.environ.get(KEY_FILE)
    try:
        secret = Path(key).read_text().strip() if key else None
        triton = Triton(arguments.url, secret, arguments.timeout_seconds)
        for model in arguments.model:
            check(triton, model)
    except (ReverseSigmoidError, OSError, KeyError, ValueError, IndexError) as error:
        said = str(error) if isinstance(error, ReverseSigmoidError) else repr(error)
        print(f"not ready: {said}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
