"""The defence's parameters: a frozen dataclass that cannot exist invalid.

In config.pbtxt they are the string parameters of the defence's model. Whatever is unknown,
malformed, not finite, out of range, missing or contradictory stops the load, and the message
names the file, the key, what was expected and what came.
"""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from postprocess.defences import DEFENCES
from postprocess.errors import InputError

#: Parameters of Triton's Python backend itself, which may stand beside ours.
TRITONS_OWN = frozenset({"EXECUTION_ENV_PATH", "FORCE_CPU_ONLY_INPUT_TENSORS"})

#: Lowest and highest value of each number. Below 0.001 the perturbation sinks under what a
#: client can see, which would be no defence under the name of one.
RANGES = {
    "beta": (0.001, 100.0),
    "gamma": (0.001, 100.0),
    "margin": (0.0, 0.9),
    "rho": (0.001, 100.0),
    "frequency": (0.001, 1e6),
    "seed": (0, 2**63 - 1),
    "decimals": (1, 6),
    "class_axis": (-32, 31),
}
CHOICES = {"defense": tuple(DEFENCES), "scores": ("logits", "probabilities")}
#: Those that name a file.
PATHS = ("calibration",)
#: What builds on Reverse Sigmoid and on no other defence.
HARDENED = ("decimals",)
#: Parameters that are no more, and what to write in their place.
RETIRED = {
    "key_file": "answers that cannot be inverted are defense decoy, which needs no secret",
    "jitter": "answers that cannot be inverted are defense decoy, which needs no secret",
    "decoy": "write defense decoy, without decoy, key_file and jitter; it has no levels",
}

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"[0-9]{1,20}")
_SIGNED = re.compile(r"-?[0-9]{1,20}")


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What the defence does; every field is a key of config.pbtxt's ``parameters``.

    Raises:
        InputError: a number out of range or not finite, an unknown choice, a parameter that
            the chosen defence needs and that is missing, or one that it cannot have.
    """

    #: What the victim's output tensor holds: "logits" or "probabilities".
    scores: str
    #: Which defence runs: one of section 4.2, or "none".
    defense: str = "reverse_sigmoid"
    #: Magnitude of the perturbation (equation 2), 0.001 to 100.
    beta: float | None = None
    #: Slope: how early the sigmoid saturates (equation 2), 0.001 to 100; reverse_sigmoid.
    gamma: float | None = None
    #: Enforce the accuracy constraint.
    preserve_top1: bool = True
    #: How far below its cap beta stays, as a fraction of the cap, 0 to 0.9: the share of the
    #: victim's own top-1 gap that survives, before normalising, in a row that is capped.
    margin: float = 0.0
    #: Each score is a classifier of its own (yes or no); rows do not sum to 1.
    multi_label: bool = False
    #: Axis of the classes in the tensor that clients see, its batch dimension included: 1 of
    #: [N, K, H, W]. Below 0 it counts from the end. All other axes are rows.
    class_axis: int = -1
    #: Width of the bell in y, 0.001 to 100; uniform_concave and uniform_convex.
    rho: float | None = None
    #: Angular frequency in radians per unit of y, 0.001 to 1e6; sine.
    frequency: float | None = None
    #: Of the random defences, 0 to 2**63 - 1; without it every start draws anew. And of decoy,
    #: whose answers are those of seed 0 without it.
    seed: int | None = None
    #: Decimals that answers are rounded to, 1 to 6.
    decimals: int | None = None
    #: File with the table of calibrated answers, see ``calibration``; absolute, or relative to the
    #: defence's model directory; calibrated.
    calibration: str | None = None

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise InputError(f"parameter {name}: expected {_wanted(name)}, got {value!r}")
        for name in DEFENCES[self.defense].needs:
            if getattr(self, name) is None:
                raise InputError(f"parameter {name}: expected {_wanted(name)}, but it is missing")
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise InputError(f"parameter {name}: expected {_wanted(name)}, got {value:g}")
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        if self.defense != "reverse_sigmoid":
            for name in HARDENED:
                if getattr(self, name) is not None:
                    raise InputError(
                        f"parameter {name}: expected defense reverse_sigmoid with it, "
                        f"got {self.defense}"
                    )
        if self.calibration is not None and self.defense != "calibrated":
            raise InputError(
                f"parameter calibration: expected defense calibrated with it, got {self.defense}"
            )
        if not self.preserve_top1:
            if self.defense in ("calibrated", "decoy"):
                raise InputError(
                    f"parameter preserve_top1: expected true with defense {self.defense}"
                )
            if self.decimals is not None:
                raise InputError("parameter decimals: expected preserve_top1 true with it")

    @property
    def repeats(self) -> bool:
        """Whether the same scores always get the same answer."""
        return not DEFENCES[self.defense].draws

    @classmethod
    def from_strings(cls, strings: Mapping[str, str], *, where: str) -> "Parameters":
        """Return the parameters that config.pbtxt's strings say.

        Args:
            strings: key to value, as Triton hands them to the model.
            where: what the error message calls their place, usually the path of the file.

        Raises:
            InputError: a key is unknown or missing, or a value is not of its kind.
        """
        try:
            known = {field.name: field for field in fields(cls)}
            given = {key: value for key, value in strings.items() if key not in TRITONS_OWN}
            for key in given:
                if key in RETIRED:
                    raise InputError(f"parameter {key}: retired: {RETIRED[key]}")
                if key not in known:
                    raise InputError(_unknown(key, list(known)))
            for key, field in known.items():
                if field.default is MISSING and key not in given:
                    raise InputError(f"parameter {key}: expected {_wanted(key)}, but it is missing")
            values: dict[str, Any] = {
                key: _parse(key, known[key].type, value) for key, value in given.items()
            }
            return cls(**values)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None

    def to_strings(self) -> dict[str, str]:
        """Return what is set as config.pbtxt holds it; ``from_strings`` reads it back."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in given.items()
            if value is not None
        }

    def __str__(self) -> str:
        """Return what is set, as ``key value`` pairs."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return ", ".join(f"{name} {value}" for name, value in given.items() if value is not None)


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown parameter {key!r}; {hint}known are {', '.join(known)}"


def _wanted(name: str) -> str:
    if name in PATHS:
        return "a path"
    if name in CHOICES:
        return " or ".join(CHOICES[name])
    low, high = RANGES[name]
    if isinstance(low, int):
        return f"an integer from {low} to {high}"
    return f"a number from {low:g} to {high:g}"


def _parse(name: str, kind: Any, text: str) -> float | int | bool | str:
    if kind is bool:
        if text not in ("true", "false"):
            raise InputError(f"parameter {name}: expected true or false, got {text!r}")
        return text == "true"
    if name in RANGES:
        low, _ = RANGES[name]
        whole = isinstance(low, int)
        # float() would take "1_0", " 1 " and digits of other scripts too.
        integer = _SIGNED if low < 0 else _INTEGER
        if not (integer if whole else _NUMBER).fullmatch(text):
            raise InputError(f"parameter {name}: expected {_wanted(name)}, got {text!r}")
        return int(text) if whole else float(text)
    if not text:
        raise InputError(f"parameter {name}: expected {_wanted(name)}, got ''")
    return text
