"""Plots as SVG text, in one style, for pages that load nothing from anywhere."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor


def figure(width: float = 5.6, height: float = 4) -> Any:
    """Return a figure and its axes."""
    made, (axes,) = panels(1, width, height)
    return made, axes


def panels(count: int, width: float, height: float = 4, *, sharey: bool = False) -> Any:
    """Return a figure and its axes, ``count`` of them side by side."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    row = made.subplots(1, count, sharey=sharey, squeeze=False)[0]
    for axes in row:
        axes.spines[["top", "right"]].set_visible(False)
    return made, list(row)


def draw_served(axes: Any, defences: Mapping[str, Parameters], *, y_label: str = "y") -> None:
    """Draw Figure 1: what is served for a probability y, by defences of probabilities.

    Over two classes (y, 1 - y) the normaliser alpha is 1, so that without the accuracy constraint
    this is equation 2 itself (beyond beta 2 clipped at 0 and 1).
    """
    y = np.linspace(0, 1, 1001, dtype=np.float32)
    axes.plot(y, y, color="0.7", linestyle="--", label=y_label)
    for label, parameters in defences.items():
        served = Postprocessor(parameters)(np.stack([y, 1 - y], axis=1))[:, 0]
        axes.plot(y, served, label=label)
    axes.set(xlabel="probability y of a class", ylabel="what is served")


def svg(made: Any) -> str:
    """Return a figure as an SVG element."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "reverse-sigmoid"}):  # the same plot, the same text
        made.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
