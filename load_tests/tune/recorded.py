"""What a classifier says about a data set, recorded once."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporters import datasets
from exporters.atomic_file import atomic_file, write_json
from exporters.datasets import Dataset, Images
from exporters.onnx_run import one_line
from load_tests.endpoint import arrange
from load_tests.runs.run import Victim
from load_tests.runs.victims import Logits, is_trained
from postprocess.errors import InputError
from postprocess.scores import to_logits

#: Images that are run at once.
ROWS = 256
#: What onnxruntime calls the types of inputs.
_TYPES: dict[str, Any] = {"tensor(float16)": np.float16, "tensor(double)": np.float64}


@dataclass(frozen=True)
class OnnxVictim:
    """A classifier without its defence, as an ONNX graph that can be run."""

    path: Path  #: of its file; external data are found beside it
    graph: bytes  #: what is run
    output: str  #: the tensor of its scores
    probabilities: bool  #: what the scores are; else logits


def record(classifier: OnnxVictim, dataset: Dataset, victims: Path, victim: Victim) -> Logits:
    """Return the classifier's logits for the test set, shape (n, K); keep them for the runs.

    Args:
        classifier: whom to ask.
        dataset: what about; the adversary's third of the training set is asked about too.
        victims: the folder where the runs look for what they steal.
        victim: what the classifier is called there.

    Raises:
        InputError: the classifier does not take the data set's images or has no finite scores
            for them, or the folder holds another classifier's scores.
    """
    home = victims / victim.name
    about = {
        "classifier": hashlib.sha256(classifier.graph).hexdigest(),
        "output": classifier.output,
        "data": hashlib.sha256(dataset.x_test.tobytes()).hexdigest(),
    }
    if is_trained(victim, victims):
        if json.loads((home / "victim.json").read_text()) != about:
            raise InputError(f"{home}: holds the scores of another classifier or data set")
    else:
        pool = datasets.hold_off(dataset, seed=victim.seed).adversary_images
        ask = _asker(classifier)
        logits = {"test": ask(dataset.x_test), "pool": ask(pool)}
        home.mkdir(parents=True, exist_ok=True)
        with atomic_file(home / "logits.npz") as part, part.open("wb") as file:
            np.savez(file, **logits)
        write_json(home / "victim.json", about, indent=None)  # the last
    with np.load(home / "logits.npz") as stored:
        test: Logits = stored["test"]
    return test


def session(classifier: OnnxVictim) -> Any:
    """Return an onnxruntime session of a classifier, on the CPU.

    Raises:
        InputError: its graph cannot be loaded.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is in the error
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(classifier.path.parent)
    )
    try:
        return onnxruntime.InferenceSession(
            classifier.graph, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise InputError(f"{classifier.path}: {one_line(error)}") from None


def _asker(classifier: OnnxVictim) -> Callable[[Images], Logits]:
    """Return what gives the classifier's logits for images."""
    opened = session(classifier)
    inputs = opened.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs)
        raise InputError(f"{classifier.path}: expected one input, of images; got {names}")

    (given,) = inputs
    shape = tuple(size if isinstance(size, int) else -1 for size in given.shape)
    dtype = _TYPES.get(given.type, np.float32)
    where = f"{classifier.path}: output {classifier.output}"

    def ask(images: Images) -> Logits:
        parts = []
        for start in range(0, len(images), ROWS):
            some = arrange(images[start : start + ROWS], shape)
            feed: dict[str, Any] = {given.name: some.astype(dtype)}
            try:
                (scores,) = opened.run([classifier.output], feed)
            except Exception as error:
                raise InputError(
                    f"{classifier.path}: input {given.name} does not take the data set's "
                    f"images, float32 {images.shape[1:]}: {one_line(error)}"
                ) from None
            if scores.ndim != 2 or len(scores) != len(some) or scores.shape[1] < 2:
                raise InputError(
                    f"{where}: expected one choice among K >= 2 classes for each of {len(some)} "
                    f"images, got scores of shape {scores.shape}"
                )
            # What the runs take cannot hold the logarithm of 0.
            logits = to_logits(scores, probabilities=classifier.probabilities)
            logits = np.maximum(logits, -np.float32(1e4))
            if not (np.isfinite(scores).all() and np.isfinite(logits).all()):
                raise InputError(f"{where}: is not finite for all of the data set's images")
            parts.append(logits)
        return np.concatenate(parts)

    return ask
