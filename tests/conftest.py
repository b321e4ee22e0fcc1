"""What holds for every test."""

import pytest

#: By these Rich and Typer colour and break what they print, also into a pipe.
TERMINAL = (
    *("FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE"),
    *("COLUMNS", "LINES", "TERMINAL_WIDTH"),
)


@pytest.fixture(scope="session", autouse=True)
def no_terminal():
    """Have commands print as into a file, whatever terminal or service the tests are run in."""
    with pytest.MonkeyPatch.context() as patch:
        for name in TERMINAL:
            patch.delenv(name, raising=False)
        yield
