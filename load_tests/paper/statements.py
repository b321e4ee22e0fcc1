"""What the READMEs say of thieves, as the runs have it, word for word."""

from load_tests.paper.beyond import Beyond

HEADING = "What the READMEs say of thieves"


def rows(measured: dict[str, Beyond]) -> list[tuple[str, str, str]]:
    """Return, for each statement that the runs can decide, its words, its page and the numbers."""
    return []
