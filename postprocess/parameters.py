"""The defence's parameters: a frozen dataclass that cannot exist invalid.

In config.pbtxt they are the string parameters of the defence's model. Whatever is unknown,
malformed, not finite, out of range or missing stops the load, and the message names the
file, the key, what was expected and what came.
"""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from postprocess.errors import InputError

#: Parameters of Triton's Python backend itself, which may stand beside ours.
TRITONS_OWN = frozenset({"EXECUTION_ENV_PATH", "FORCE_CPU_ONLY_INPUT_TENSORS"})

#: Lowest and highest value of each number. Below 0.001 the perturbation sinks under what a
#: client can see, which would be no defence under the name of one.
RANGES = {"beta": (0.001, 100.0), "gamma": (0.001, 100.0), "margin": (0.0, 0.9)}
CHOICES = {"defense": ("reverse_sigmoid",), "scores": ("logits", "probabilities")}

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What the defence does; every field is a key of config.pbtxt's ``parameters``.

    Raises:
        InputError: a number out of range or not finite, or an unknown choice.
    """

    #: Magnitude of the perturbation (equation 2), 0.001 to 100.
    beta: float
    #: Slope: how early the sigmoid saturates (equation 2), 0.001 to 100.
    gamma: float
    #: What the victim's output tensor holds: "logits" or "probabilities".
    scores: str
    #: Which defence runs; "reverse_sigmoid".
    defense: str = "reverse_sigmoid"
    #: Enforce the accuracy constraint by capping beta per row.
    preserve_top1: bool = True
    #: How far below its cap beta stays, as a fraction of the cap, 0 to 0.9: the share of the
    #: victim's own top-1 gap that survives, before normalising, in a row that is capped.
    margin: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise InputError(f"parameter {name}: expected {_wanted(name)}, got {value:g}")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise InputError(
                    f"parameter {name}: expected {' or '.join(choices)}, got {value!r}"
                )

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


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown parameter {key!r}; {hint}known are {', '.join(known)}"


def _wanted(name: str) -> str:
    if name in CHOICES:
        return " or ".join(CHOICES[name])
    low, high = RANGES[name]
    return f"a number from {low:g} to {high:g}"


def _parse(name: str, kind: Any, text: str) -> float | bool | str:
    if kind is bool:
        if text not in ("true", "false"):
            raise InputError(f"parameter {name}: expected true or false, got {text!r}")
        return text == "true"
    if kind is float:
        # float() would take "1_0", " 1 " and digits of other scripts too.
        if not _NUMBER.fullmatch(text):
            raise InputError(f"parameter {name}: expected {_wanted(name)}, got {text!r}")
        return float(text)
    return text
