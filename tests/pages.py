"""The pages of this project, and what they say that can be checked."""

import re
import shlex
from pathlib import Path

import typer

from deploy.commands.app import app

ROOT = Path(__file__).parents[1]
FOLDERS = ("postprocess", "exporters", "load_tests", "deploy", "tests")
#: Path from the root to text, README.md first.
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (
        *sorted(ROOT.glob("*.md"), reverse=True),
        *(page for folder in FOLDERS for page in sorted((ROOT / folder).rglob("*.md"))),
    )
}
#: Those that people wrote; the others are made by a command.
WRITTEN = [name for name in PAGES if name.endswith(("README.md", "CHANGELOG.md"))]
README = PAGES["README.md"]
EVERYTHING = "\n".join(PAGES[name] for name in WRITTEN)
#: What a shell runs; either is a fence that a page may use.
SHELL = "(?:bash|sh)"


def blocks(language, text=EVERYTHING):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def spans(text):
    """Return the code in the running text of a page, each in one line."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


def block(start):
    """Return the one block of commands that starts like this, lines that go on made one."""
    (found,) = {each for each in blocks(SHELL) if each.startswith(start)}
    return found.replace("\\\n", "")


def shown_after(command, language="text"):
    """Return the first block of a language after a block of commands, on the same page."""
    for text in PAGES.values():
        _, fence, rest = text.partition(f"\n{command}```\n")
        if fence and blocks(language, rest):
            return blocks(language, rest)[0]
    raise LookupError(command)


def ours(text):
    """Yield the words of every command of ours in the blocks of a page."""
    for each in blocks(SHELL, text):
        for line in each.replace("\\\n", "").replace("&&", "\n").splitlines():
            words = shlex.split(line, comments=True)
            if "reverse-sigmoid" in words:
                yield words[words.index("reverse-sigmoid") :]


def command_named(name):
    """Return a command of ``reverse-sigmoid``."""
    group = typer.main.get_command(app)
    with group.make_context("reverse-sigmoid", [name]) as context:
        return group.resolve_command(context, [name])[1]


def command_names():
    group = typer.main.get_command(app)
    with group.make_context("reverse-sigmoid", ["demo"]) as context:
        return group.list_commands(context)


def options_of(name):
    """Return the options that a command takes."""
    named = command_named(name).params
    return {"--help"}.union(*([*option.opts, *option.secondary_opts] for option in named))


def understood(words):
    """Return what ``reverse-sigmoid`` makes of its words, without doing it."""
    command = command_named(words[1])
    with command.make_context(words[1], words[2:]) as context:
        return context.params
