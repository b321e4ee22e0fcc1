"""Headings of ``RESULTS.md``, and links to them."""

import re

from load_tests.paper.tables import TITLES

ADVICE = "which beta and gamma, and what they cost"
FACTS = "what the paper says, and what we measured"
TABLE_1 = "Table 1, agreement of P -> agreement of S(P)"
TABLE_2 = "Table 2, Reverse Sigmoid"
TABLE_3 = "Table 3, networks as M, accuracy"
TABLE_4 = "Table 4, thieves, agreement"
CONVERGED = "thieves who train to the end"
WORTH = "how many labels a probability is worth"
HONEST = "answers for honest clients"
FEW = "thieves of few queries"
SUITE = "every thief before our setting"
HARDENED = "hardened modes, and what thieves make of them"
MARGINS = "the top-1 margin"
FIGURES = "figures"
UNLIKE = "What did not reproduce, and why"


def heading(scale: str, what: str, data: str = "") -> str:
    """Return the heading of a table, which no other table has."""
    return f"Scale {scale}{', ' * bool(data)}{TITLES.get(data, '')}: {what}"


def link(text: str, to: str) -> str:
    """Return a Markdown link to a heading of the same page."""
    anchor = re.sub(r"[^\w\- ]", "", to.lower()).replace(" ", "-")
    return f"[{text}](#{anchor})"
