"""The defences by name: Reverse Sigmoid, the paper's others, the two codebooks, and none."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from postprocess import baselines
from postprocess.pseudo_logits import Float32

if TYPE_CHECKING:
    from postprocess.parameters import Parameters


@dataclass(frozen=True)
class Defence:
    """One way to perturb probabilities."""

    needs: tuple[str, ...]  #: parameters that it cannot do without; it uses no other number
    #: What it adds to probabilities, see ``baselines``; Reverse Sigmoid's needs more than them.
    noise: "Callable[[Float32, Parameters, np.random.Generator], Float32] | None" = None
    draws: bool = False  #: whether the same question gets another answer each time; by ``seed``


DEFENCES = {
    "reverse_sigmoid": Defence(("beta", "gamma")),
    "uniform": Defence(("beta",), baselines.uniform, draws=True),
    "uniform_concave": Defence(("beta", "rho"), baselines.concave, draws=True),
    "uniform_convex": Defence(("beta", "rho"), baselines.convex, draws=True),
    "sine": Defence(("beta", "frequency"), baselines.sine),
    "calibrated": Defence(("calibration",)),
    "decoy": Defence(()),
    "none": Defence(()),
}
