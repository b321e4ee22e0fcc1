"""The defence in C, where it was compiled: the files in ``c/`` beside this one, bound with ctypes.

It answers what ``pseudo_logits``, ``top1``, ``reverse_sigmoid``, ``quantise``, ``calibrated`` and
``decoy`` answer, several times faster. Those stay the reference, and run where it was not compiled.

``python -m postprocess.kernel`` ends with 1 where there is none: the image is built by it.
"""

import ctypes
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprocess import scores as kinds
from postprocess.arrays import Array
from postprocess.calibration import Calibration
from postprocess.parameters import Parameters
from postprocess.pseudo_logits import Float32

#: Above it the error of s in float32, 1e-7, times beta would leave the 1e-6 that is promised.
MAX_BETA = 4.0
#: Above it a polynomial of so few terms is no (1 - y)^gamma.
MAX_GAMMA = 4.0
#: Largest end of a level, in log-odds, that float32 tells apart well enough.
MAX_LOG_ODDS = 1e6

#: Coefficients of (1 - y)^gamma, as in c/lanes.h.
_TERMS = 7

#: How what is compiled at an install comes to be there.
COMPILE = (
    "Install a C compiler (Debian and Ubuntu: apt install gcc libc6-dev) and then this package "
    "again: pip install --force-reinstall --no-deps --no-cache-dir, from where it came"
)
#: What is said where there is no kernel.
MISSING = (
    "the defence's kernel was not compiled when it was installed, so NumPy answers, with several "
    f"times the CPU time. {COMPILE}. Where the package was copied beside model.py, protect the "
    "model again with --self-contained"
)


FLOAT32 = np.dtype(np.float32)

_first_byte: Any = ctypes.c_char.from_buffer
_addressof = ctypes.addressof


class _Settings(ctypes.Structure):
    """``struct settings`` of c/lanes.h, field by field."""

    _fields_ = (
        ("beta", ctypes.c_float),
        ("gamma", ctypes.c_float),
        ("kept", ctypes.c_float),
        ("most_beta", ctypes.c_float),
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


class _Book(ctypes.Structure):
    """``struct book`` of c/codebook.c, field by field."""

    _fields_ = (
        ("cuts", ctypes.c_void_p),
        ("own", ctypes.c_void_p),
        ("rest", ctypes.c_void_p),
        ("levels", ctypes.c_int32),
        ("size", ctypes.c_int32),
    )


def open_library() -> ctypes.CDLL | None:
    """Return the compiled kernel that lies beside this file, or None where there is none."""
    pointer, whole = ctypes.c_void_p, ctypes.c_int64
    for path in files(Path(__file__).parent):
        try:
            library = ctypes.CDLL(str(path))
            rows = (library.reverse_sigmoid, library.careful, library.sides)
            others = library.codebook, library.quantise, library.widen, library.narrow
        except (OSError, AttributeError):  # compiled for another machine, or an older version
            continue
        for function in rows:
            function.argtypes = [pointer] * 3 + [whole] * 2
        library.codebook.argtypes = [pointer] * 4 + [whole] * 2 + [pointer]
        library.quantise.argtypes = [pointer] + [whole] * 2 + [ctypes.c_int32]
        library.widen.argtypes = [pointer] * 2 + [whole]
        library.narrow.argtypes = [pointer] * 2 + [whole] * 2 + [ctypes.c_int32]
        library.to_logits.argtypes = [pointer] * 3 + [whole] * 2 + [ctypes.c_int32]
        for function in (*rows, *others, library.to_logits):
            function.restype = whole
        return library
    return None


_library = open_library()


class Kernel:
    """Reverse Sigmoid for one model. Holds no state, may be called by threads."""

    def __init__(
        self,
        library: ctypes.CDLL,
        parameters: Parameters,
        *,
        impossible: bool = False,
        single: bool = False,
    ) -> None:
        beta, gamma = parameters.beta or 0, parameters.gamma or 0
        self._function = library.reverse_sigmoid
        if single:
            self._function = library.sides
        elif gamma > MAX_GAMMA or (beta > MAX_BETA and not parameters.preserve_top1):
            self._function = library.careful  # else the constraint lowers beta, row by row
        self.single = single
        self._least = 1 if single else 2
        self._settings = _settings(parameters, impossible=impossible)
        self._address = ctypes.addressof(self._settings)

    def __call__(self, scores: Float32, out: Float32 | None = None) -> tuple[Float32, int, int]:
        """Return the answer, and what it counted.

        Args:
            scores: shape (rows, K), float32, C-contiguous; K >= 2, unless each is a yes or no.
            out: where the answer goes, the same, writable and not overlapping ``scores``; every
                entry is written. A new array if it is left out.

        Returns:
            the answer; in how many rows the accuracy constraint lowered beta; or, if a row is bad
            (see ``scores.bad_rows``), -1 - r with r the first such row: the answer then is rubbish
            and must be dropped. And how many rows of logits look like probabilities.

        Raises:
            ValueError: the arrays are not as above.
        """
        shape = scores.shape
        if len(shape) != 2 or shape[1] < self._least or scores.dtype != FLOAT32:
            raise ValueError("kernel: expected float32 scores of shape (rows, K), K >= 2")
        if out is None:
            out = np.empty(shape, FLOAT32)
        elif out.shape != shape or out.dtype != FLOAT32 or not out.flags.carray:
            raise ValueError("kernel: expected an array like the scores for the answer")
        if not shape[0]:
            return out, 0, 0
        source = _addressof(_first_byte(scores)) if scores.flags.carray else _source(scores)
        target = _addressof(_first_byte(out))
        counted = self._function(self._address, source, target, *shape)
        return (out, counted, 0) if 0 <= counted < 2**32 else (out, *_counts(counted))


class Codebook:
    """Answers that hang on the top class, or on it and a level of its confidence, alone."""

    def __init__(
        self,
        library: ctypes.CDLL,
        parameters: Parameters,
        *,
        own: Array,
        rest: Array | None = None,
        cuts: Array | None = None,
    ) -> None:
        """Take the answers, in their own type.

        Args:
            library: the kernel.
            parameters: of the defence; what the scores are.
            own: a top class's entry, shape (K, levels); or, without ``rest``, one row twice, shape
                (2 * K,): the answer of class k is ``own[K - k : 2 * K - k]``.
            rest: every other class's, shape (K, levels).
            cuts: where levels end, in log-odds, one fewer than levels.
        """
        self._function = library.codebook
        # Of float64 alone the kernel gets what ``Types.to_logits`` has made, looked at and finite.
        self._settings = _settings(parameters, impossible=own.dtype == np.float64)
        self.dtype = own.dtype
        self._classes = len(own) // 2 if rest is None else len(own)
        self._kept = own, rest, None if cuts is None else cuts.astype(np.float32)
        self._book = _Book(
            *(None if one is None else one.ctypes.data for one in (self._kept[2], own, rest)),
            0 if rest is None else own.shape[1],
            own.itemsize,
        )
        self._addresses = ctypes.addressof(self._settings), ctypes.addressof(self._book)

    def __call__(self, scores: Float32) -> tuple[Array, int, int, NDArray[np.bool_]]:
        """Return the answer, what it counted, and rows that are to be answered by the reference.

        Args:
            scores: shape (rows, K), float32, C-contiguous, K as that of the answers.

        Returns:
            the answer; how many rows it leaves, or -1 - r of a bad row; how many look like
            probabilities; and which it leaves, shape (rows,): too near the end of a level.
        """
        if scores.shape[1:] != (self._classes,) or scores.dtype != np.float32:
            raise ValueError(f"kernel: expected float32 scores of shape (rows, {self._classes})")
        out, unsure = np.empty(scores.shape, self.dtype), np.zeros(len(scores), np.bool_)
        if not out.size:
            return out, 0, 0, unsure
        counted = self._function(*self._addresses, _source(scores), _address_of(out),
                                 *scores.shape, _address_of(unsure))  # fmt: skip
        return out, *_counts(counted), unsure


def kernel_for(
    parameters: Parameters, *, impossible: bool = False, single: bool = False
) -> Kernel | None:
    """Return Reverse Sigmoid in C, or None where there is no kernel or another defence.

    Args:
        parameters: of the model.
        impossible: take a logit of -inf as a class of probability 0. Otherwise such a row is
            bad.
        single: every score is a yes or no of its own.
    """
    if _library is None or parameters.defense != "reverse_sigmoid":
        return None
    return Kernel(_library, parameters, impossible=impossible, single=single)


def in_reach(parameters: Parameters) -> bool:
    """Say whether a compiled kernel does what these parameters ask."""
    if parameters.defense in ("calibrated", "decoy"):
        return not parameters.multi_label
    return parameters.defense == "reverse_sigmoid"


def answers(parameters: Parameters) -> bool:
    """Say whether the compiled kernel makes the answers, and not NumPy."""
    return _library is not None and in_reach(parameters)


def is_missing(parameters: Parameters) -> bool:
    """Say whether NumPy has to do what a kernel would do, were it compiled."""
    return _library is None and in_reach(parameters)


def calibrated_for(
    parameters: Parameters, table: Calibration, dtype: np.dtype[Any]
) -> Codebook | None:
    """Return the answers of a table of classes in C, in that type; None where it cannot."""
    cuts = np.array(table.log_odds)
    if _library is None or table.single or (np.abs(cuts) > MAX_LOG_ODDS).any():
        return None
    own, rest = table.table.astype(dtype), table.others(table.table).astype(dtype)
    return Codebook(_library, parameters, own=own, rest=rest, cuts=cuts)


def decoy_for(parameters: Parameters, twice: Array) -> Codebook | None:
    """Return the answers of ``decoy.twice`` in C; None where there is no kernel."""
    return None if _library is None else Codebook(_library, parameters, own=twice)


def quantise(rows: Float32, *, decimals: int) -> bool:
    """Make rows whole units of ``10**-decimals``, in place; return whether there is a kernel.

    Args:
        rows: shape (rows, K), float32, C-contiguous; one class is above all others.
        decimals: 1 to 6.
    """
    if _library is None:
        return False
    if rows.size and _library.quantise(_address_of(rows), *rows.shape, 10**decimals) < 0:
        raise MemoryError
    return True


class Types:
    """A model's scores that are no float32, as the kernel takes them; its answers as float16."""

    def __init__(self, library: ctypes.CDLL, parameters: Parameters) -> None:
        self._library = library
        self._settings = _settings(parameters, impossible=False)
        self._address = ctypes.addressof(self._settings)
        self._keeps = parameters.preserve_top1

    def widen(self, scores: Array) -> Float32:
        """Return float16 as float32, C-contiguous."""
        rows = np.ascontiguousarray(scores)
        out = np.empty(rows.shape, np.float32)
        if rows.size:
            self._library.widen(rows.ctypes.data, _address_of(out), rows.size)
        return out

    def narrow(self, rows: Float32, *, single: bool) -> Array:
        """Return the kernel's answers as float16, the top class or side kept where it has to be.

        Args:
            rows: shape (rows, K), in [0, 1].
            single: every entry is a yes or no of its own.
        """
        rows, out = np.ascontiguousarray(rows), np.empty(rows.shape, np.float16)
        kept = (2 if single else 1) if self._keeps else 0
        if rows.size:
            self._library.narrow(rows.ctypes.data, _address_of(out), *rows.shape, kept)
        return out

    def to_logits(self, scores: Array, *, single: bool) -> tuple[Float32, int] | None:
        """Return float64 scores as float32 logits, and how many rows look like probabilities.

        A logit of -inf is a class of probability 0. None where a row is bad, see
        ``scores.bad_rows``. What they are otherwise, ``scores.to_logits`` tells.
        """
        rows = np.ascontiguousarray(scores)
        out = np.empty(rows.shape, np.float32)
        alike = 0
        if rows.size:
            alike = self._library.to_logits(
                self._address, rows.ctypes.data, _address_of(out), *rows.shape, single
            )
        return None if alike < 0 else (out, alike)


def types_for(parameters: Parameters) -> Types | None:
    """Return what converts scores and answers in C; None where there is no kernel."""
    return None if _library is None else Types(_library, parameters)


def _settings(parameters: Parameters, *, impossible: bool) -> _Settings:
    return _Settings(
        beta=parameters.beta or 0,
        gamma=parameters.gamma or 0,
        kept=1 - parameters.margin,
        most_beta=MAX_BETA,
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


def _counts(counted: int) -> tuple[int, int]:
    if counted == -(2**63):
        raise MemoryError
    return (counted, 0) if counted < 2**32 else (counted & 0xFFFFFFFF, counted >> 32)


def _address_of(array: Any) -> int:
    """Where a writable array's first byte is, at a quarter of what ``array.ctypes`` costs."""
    return _addressof(_first_byte(array))


def _source(scores: Float32) -> int:
    flags = scores.flags
    if not (flags.c_contiguous and flags.aligned):
        raise ValueError("kernel: expected C-contiguous scores")
    return _address_of(scores) if flags.writeable else scores.ctypes.data


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
