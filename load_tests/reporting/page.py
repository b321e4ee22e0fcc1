"""Tables, numbers and pages for people, in one style."""

import html
from collections.abc import Iterable, Sequence

_STYLE = """\
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem;
         margin: 2rem auto; padding: 0 1rem }
  table { border-collapse: collapse }
  th, td { padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #ddd; text-align: right }
  th:first-child, td:first-child { text-align: left }
  figure { display: inline-block; margin: 1rem 1rem 0 0 }
  figure svg { max-width: 100%; height: auto }
  .caption, code { color: #555 }"""


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], *rules: str) -> str:
    """Return a Markdown table.

    Args:
        head: of the columns.
        rows: a cell for each column.
        rules: of the first columns, such as ``---:``; the last holds for those after it too.
    """
    rules = rules or ("---",)
    under = [rules[min(column, len(rules) - 1)] for column in range(len(head))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, under, *rows))


def html_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of text as HTML."""
    lines = [("th", head), *(("td", row) for row in rows)]
    cells = ("".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line) for tag, line in lines)
    return "<table>\n" + "".join(f"<tr>{line}</tr>\n" for line in cells) + "</table>"


def page(title: str, *parts: str, command: str) -> str:
    """Return a whole HTML page that loads nothing from anywhere.

    Args:
        title: of the window, and the page's heading.
        parts: of the page, HTML.
        command: that made it.
    """
    lines = (
        *("<!doctype html>", '<html lang="en">', '<meta charset="utf-8">'),
        *(f"<title>{html.escape(title)}</title>", f"<style>\n{_STYLE}\n</style>"),
        *(f"<h1>{html.escape(title)}</h1>", *parts),
        *(f"<p>Made by <code>{html.escape(command)}</code></p>", "</html>"),
    )
    return "\n".join(lines) + "\n"


def digits(value: float | None) -> str:
    """Return a measured number for a table, a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
