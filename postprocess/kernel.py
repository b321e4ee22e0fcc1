"""The defence in C, where it was compiled: ``_kernel.c`` beside this file, bound with ctypes.

It answers what ``pseudo_logits``, ``top1`` and ``reverse_sigmoid`` answer, several times
faster. Those stay the reference, and they run wherever the kernel does not: it was not
compiled, gamma is above 1, or beta is so large that float32 exponentials would show.

``python -m postprocess.kernel`` ends with 1 where there is none: the image is built by it.
"""

import ctypes
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np

from postprocess import scores as kinds
from postprocess.parameters import Parameters
from postprocess.pseudo_logits import Float32

#: Above it the error of s, 1e-7, times beta would leave the 1e-6 that is promised.
MAX_BETA = 4.0
#: Above it the accuracy constraint has to look at every class, not at two.
MAX_GAMMA = 1.0

#: Coefficients of (1 - y)^gamma, as in _kernel.c.
_TERMS = 7

#: How what is compiled at an install comes to be there.
COMPILE = (
    "Install a C compiler (Debian and Ubuntu: apt install gcc libc6-dev) and then this package "
    "again: pip install --force-reinstall --no-deps --no-cache-dir, from where it came"
)
#: What is said where there is no kernel.
MISSING = (
    "the defence's kernel was not compiled at the install, so that NumPy answers, with several "
    f"times the CPU time. {COMPILE}. Where the package was copied beside model.py, protect the "
    "model again with --self-contained"
)


class _Settings(ctypes.Structure):
    """``struct settings`` of _kernel.c, field by field."""

    _fields_ = (
        ("beta", ctypes.c_float),
        ("gamma", ctypes.c_float),
        ("kept", ctypes.c_float),
        ("powers", ctypes.c_float * _TERMS),
        ("probabilities", ctypes.c_int32),
        ("impossible", ctypes.c_int32),
        ("preserve_top1", ctypes.c_int32),
        ("lowest", ctypes.c_float),
        ("highest", ctypes.c_float),
        ("step", ctypes.c_float),
        ("least_off", ctypes.c_float),
        ("most_off", ctypes.c_float),
    )


def files(package: Path) -> Iterator[Path]:
    """Yield what was compiled of the kernel in a copy of this package."""
    paths = (package / f"_kernel{suffix}" for suffix in EXTENSION_SUFFIXES)
    return (path for path in paths if path.is_file())


def open_library() -> ctypes.CDLL | None:
    """Return the compiled kernel that lies beside this file, or None where there is none."""
    for path in files(Path(__file__).parent):
        try:
            library = ctypes.CDLL(str(path))
        except OSError:  # compiled for another machine
            continue
        function = library.reverse_sigmoid
        function.restype = ctypes.c_int64
        function.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 2
        return library
    return None


_library = open_library()


def _address_of(array: Any) -> Any:
    """A pointer to a writable array's first byte, at a quarter of what ``array.ctypes`` costs."""
    return ctypes.byref(ctypes.c_char.from_buffer(array))


class Kernel:
    """The defence of one model for K >= 2 classes. Holds no state, may be called by threads."""

    def __init__(
        self, library: ctypes.CDLL, parameters: Parameters, *, impossible: bool = False
    ) -> None:
        self._function = library.reverse_sigmoid
        self._settings = _Settings(
            beta=parameters.beta,
            gamma=parameters.gamma,
            kept=1 - parameters.margin,
            powers=(ctypes.c_float * _TERMS)(*_powers(parameters.gamma or 0)),
            probabilities=parameters.scores == "probabilities",
            impossible=impossible,
            preserve_top1=parameters.preserve_top1,
            lowest=-kinds.PROBABILITY_ROUNDING,
            highest=1 + kinds.PROBABILITY_EXCESS,
            step=kinds.PROBABILITY_STEP,
            least_off=kinds.PROBABILITY_SUM_TOLERANCE,
            most_off=kinds.PROBABILITY_SUM_LIMIT,
        )
        self._address = ctypes.addressof(self._settings)

    def __call__(self, scores: Float32, out: Float32) -> tuple[int, int]:
        """Return what it counted; the answer is in ``out``.

        Args:
            scores: shape (rows, K), K >= 2, float32, C-contiguous.
            out: the same, writable and not overlapping ``scores``. Every entry is written.

        Returns:
            in how many rows the accuracy constraint lowered beta; or, if a row is bad (see
            ``scores.bad_rows``), -1 - r with r the first such row: ``out`` then holds rubbish
            and must be dropped. And how many rows of logits look like probabilities.

        Raises:
            ValueError: the arrays are not as above.
        """
        if (
            scores.shape != out.shape
            or scores.ndim != 2
            or scores.shape[1] < 2
            or scores.dtype != np.float32
            or out.dtype != np.float32
            or not out.flags.carray
        ):
            raise ValueError("kernel: expected two float32 arrays of one shape (rows, K), K >= 2")
        if not out.size:
            return 0, 0
        flags = scores.flags
        source: Any
        if flags.carray:
            source = _address_of(scores)
        elif flags.c_contiguous and flags.aligned:
            source = scores.ctypes.data
        else:
            raise ValueError("kernel: expected C-contiguous scores")
        target = _address_of(out)
        counted: int = self._function(self._address, source, target, *scores.shape)
        return (counted, 0) if counted < 2**32 else (counted & 0xFFFFFFFF, counted >> 32)


def kernel_for(parameters: Parameters, *, impossible: bool = False) -> Kernel | None:
    """Return the kernel for these parameters, or None where the NumPy path has to do it.

    Args:
        parameters: of the model.
        impossible: take a logit of -inf as a class of probability 0. Otherwise such a row is
            bad.
    """
    if _library is None or not in_reach(parameters):
        return None
    return Kernel(_library, parameters, impossible=impossible)


def in_reach(parameters: Parameters) -> bool:
    """Say whether a compiled kernel does what these parameters ask."""
    beta, gamma = parameters.beta or np.inf, parameters.gamma or np.inf
    plain = parameters.defense == "reverse_sigmoid" and not (
        parameters.multi_label or parameters.decimals or parameters.key_file
    )
    return plain and gamma <= MAX_GAMMA and beta <= MAX_BETA


def is_missing(parameters: Parameters) -> bool:
    """Say whether NumPy has to do what a kernel would do, were it compiled."""
    return _library is None and in_reach(parameters)


def _powers(gamma: float) -> list[float]:
    """Coefficients of (1 - y)^gamma by rising power of y, for y in [0, 1/2]: error 2e-7.

    No class but the top one can have more than 1/2. At gamma <= 1 the error moves s by at
    most a quarter of that.
    """
    points = 0.25 + 0.25 * np.cos(np.pi * (np.arange(_TERMS) + 0.5) / _TERMS)
    powers = np.vander(points, _TERMS, increasing=True)
    return [float(value) for value in np.linalg.solve(powers, (1 - points) ** gamma)]


if __name__ == "__main__" and _library is None:
    sys.exit(f"{Path(__file__).parent}: {MISSING}")
