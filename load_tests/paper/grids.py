"""The settings that each defence is tried with, and the paper's choice among them."""

from dataclasses import dataclass
from typing import Any

from exporters.repository.model_repository import SHIPPED

#: The defences of section 4.2, in the order of the paper's tables, and how people call them.
NAMES = {
    "reverse_sigmoid": "Reverse Sigmoid",
    "uniform": "Uniform",
    "uniform_concave": "x Concave",
    "uniform_convex": "x Convex",
    "sine": "Sine",
}
#: Share of the top-1 gap that our own settings keep, the shipped default.
MARGIN = SHIPPED.margin

DefenceSettings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Candidates for every defence; the paper does not name its own."""

    reverse_sigmoid: tuple[tuple[float, float], ...]  #: (beta, gamma)
    uniform: tuple[float, ...]  #: beta
    shaped: tuple[tuple[float, float], ...]  #: (beta, rho) of x Concave and x Convex
    sine: tuple[tuple[float, float], ...]  #: (beta, frequency)

    def settings(self, defence: str, *, capped: bool) -> list[DefenceSettings]:
        """Return the candidates of a defence, as parameters.

        Args:
            defence: one of ``NAMES``.
            capped: with the accuracy constraint, which the paper states and does not enforce.
        """
        found: list[DefenceSettings] = {
            "reverse_sigmoid": [{"beta": b, "gamma": g} for b, g in self.reverse_sigmoid],
            "uniform": [{"beta": b} for b in self.uniform],
            "uniform_concave": [{"beta": b, "rho": r} for b, r in self.shaped],
            "uniform_convex": [{"beta": b, "rho": r} for b, r in self.shaped],
            "sine": [{"beta": b, "frequency": f} for b, f in self.sine],
        }[defence]
        mode = {"margin": MARGIN} if capped else {"preserve_top1": False}
        return [{"defense": defence, **setting, **mode} for setting in found]
