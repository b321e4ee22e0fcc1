"""Plots as SVG text, in one style, for pages that load nothing from anywhere."""

import io
from typing import Any

STYLE = """\
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem;
         margin: 2rem auto; padding: 0 1rem }
  table { border-collapse: collapse }
  th, td { padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #ddd; text-align: right }
  th:first-child, td:first-child { text-align: left }
  figure { display: inline-block; margin: 1rem 1rem 0 0 }
  figure svg { max-width: 100%; height: auto }
  .caption, code { color: #555 }"""


def figure(width: float = 5.6, height: float = 4) -> Any:
    """Return a figure and its axes."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    axes = made.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return made, axes


def svg(made: Any) -> str:
    """Return a figure as an SVG element."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "reverse-sigmoid"}):  # the same plot, the same text
        made.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
