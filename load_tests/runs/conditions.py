"""What decides a run's result beside the run itself, so that it can be made again.

The numbers of a training hang on how many threads add them up, on the backend and on the vector
instructions that its libraries choose: a substitute of the same seed agreed with its victim on .660
of the images with one thread, on .696 with two. With all of it the same, everything is the same to
the last digit.
"""

import importlib.metadata
import os
import re
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from exporters.quiet_import import ONEDNN
from load_tests.timing.machine import cpu, vector_instructions
from postprocess.errors import InputError

BACKENDS = ("tensorflow", "jax", "torch")
#: Of the environment: how many threads the libraries start.
_THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS", "NPROC",
)  # fmt: skip
#: Which code they run. A file may set these and no others: they name no file and no program.
_SWITCHES = (
    ONEDNN, "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "OPENBLAS_CORETYPE",
    "TF_DETERMINISTIC_OPS", "TF_CUDNN_DETERMINISTIC", "NVIDIA_TF32_OVERRIDE",
)  # fmt: skip
#: The same; told where they differ, and not set.
_TOLD = ("XLA_FLAGS", "TF_XLA_FLAGS")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a process that makes runs is started with.

    Raises:
        InputError: no process can be.
    """

    threads: int
    backend: str  #: Keras's, one of ``BACKENDS``
    switches: dict[str, str] = field(default_factory=dict)  #: of the environment

    def __post_init__(self) -> None:
        if not isinstance(self.threads, int) or self.threads < 1:
            raise InputError(f"threads: expected a whole number from 1, got {self.threads!r}")
        if self.backend not in BACKENDS:
            raise InputError(f"backend: expected {', '.join(BACKENDS)}, got {self.backend!r}")
        for name, value in self.switches.items():
            if name not in _SWITCHES or not re.fullmatch(r"\w+", str(value)):
                raise InputError(
                    f"switches: expected words for some of {', '.join(_SWITCHES)}, got {value!r} "
                    f"for {name}"
                )

    @classmethod
    def here(cls, *, jobs: int = 1) -> "Conditions":
        """Return those of one of so many processes that share the processors."""
        backend = os.environ.get("KERAS_BACKEND") or BACKENDS[0]
        usual = {ONEDNN: "1"} if backend == "tensorflow" and ONEDNN not in os.environ else {}
        return cls(
            threads=max(1, len(os.sched_getaffinity(0)) // jobs),
            backend=backend,
            switches=usual | _set(_SWITCHES),
        )

    @classmethod
    def from_json(cls, made_with: dict[str, Any]) -> "Conditions":
        """Return those that ``made_with`` told of.

        Raises:
            InputError: it did not.
        """
        try:
            return cls(**{name: made_with[name] for name in ("threads", "backend", "switches")})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"made_with: {error}") from None

    def environment(self) -> dict[str, str]:
        """Return the environment of such a process."""
        return {
            **{name: value for name, value in os.environ.items() if name not in _SWITCHES},
            ONEDNN: "",  # or importing TensorFlow would set it
            **self.switches,
            **{name: str(self.threads) for name in _THREADS},
            "KERAS_BACKEND": self.backend,
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        }


def made_with(data: str) -> dict[str, Any]:
    """Return what this process makes its results with, for their files.

    Beside ``Conditions``, which such a process was started with, what cannot be chosen: the
    versions, the processor and other devices, and the ``data``, as a hash.
    """
    import keras

    started = Conditions(
        threads=int(os.environ[_THREADS[0]]),
        backend=keras.backend.backend(),
        switches=_set(_SWITCHES),
    )
    return {
        **asdict(started),
        "flags": _set(_TOLD),
        "versions": _versions(started.backend),
        "processor": cpu(),
        "instructions": vector_instructions(),
        "devices": _devices(started.backend),
        "data": data,
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what two results were not made alike with, a line for each thing."""
    names = dict.fromkeys([*before, *now])
    return [
        f"{name}: {before.get(name)}, now {now.get(name)}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _set(names: tuple[str, ...]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def _versions(backend: str) -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in ("keras", "numpy", backend):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def _devices(backend: str) -> list[str]:
    if backend == "torch":  # Keras lists none
        import torch

        return ["gpu" if torch.cuda.is_available() else "cpu"]
    import keras

    found: list[str] = keras.distribution.list_devices()
    return found
