"""Small edits of a config.pbtxt, everything else left as it is: comments, order, spacing.

A scanner of fields and their places, not a parser: callers read what comes out with the real
one and compare it with what they wanted.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.repository.config_edit import STRING, without_comments
from postprocess.errors import InputError

_TOKEN = re.compile(rf"{STRING}|[{{}}\[\]<>:;,]|[^\s{{}}\[\]<>:;,\"']+")
_CLOSING = {"{": "}", "<": ">", "[": "]"}

#: What can be edited.
ONE_A_LINE = "write one field a line, as in the Triton documentation"
#: A place in a text: from, to.
Span = tuple[int, int]
#: What stands in a place instead.
Edit = tuple[Span, str]


@dataclass(frozen=True)
class TextField:
    """A field of a message, as it stands in the text."""

    name: str
    span: Span  #: all of it, the separator behind it included
    values: tuple[Span, ...]  #: several in a list; of a message with its brackets


def fields(text: str, span: Span | None = None) -> list[TextField]:
    """Return the fields of a message, in their order.

    Args:
        text: of a config.pbtxt.
        span: of a message in it, with its brackets; None: the whole text.

    Raises:
        InputError: a form of text that this does not know.
    """
    start, end = (0, len(text)) if span is None else (span[0] + 1, span[1] - 1)
    tokens = list(_TOKEN.finditer(without_comments(text), start, end))
    found, at = [], 0
    try:
        while at < len(tokens):
            name, at = tokens[at], at + 1
            if tokens[at][0] == ":":
                at += 1
            first, last = at, _last(tokens, at)
            values = _elements(tokens, first, last) if tokens[first][0] == "[" else [(first, last)]
            at = last + 1
            if at < len(tokens) and tokens[at][0] in (",", ";"):
                at += 1
            spans = tuple((tokens[one].start(), tokens[other].end()) for one, other in values)
            found.append(TextField(name[0], (name.start(), tokens[at - 1].end()), spans))
    except IndexError:
        raise InputError(
            f"written in a form that cannot be edited in place; {ONE_A_LINE}"
        ) from None
    return found


def _elements(tokens: list[re.Match[str]], first: int, last: int) -> list[tuple[int, int]]:
    """Return the first and the last token of each value of a list."""
    found, at = [], first + 1
    while at < last:
        if tokens[at][0] != ",":
            found.append((at, _last(tokens, at)))
            at = found[-1][1]
        at += 1
    return found


def _last(tokens: list[re.Match[str]], at: int) -> int:
    """Return the last token of the value that begins with a token."""
    if tokens[at][0] in _CLOSING:
        depth = 0
        while True:
            depth += (tokens[at][0] in _CLOSING) - (tokens[at][0] in _CLOSING.values())
            if depth == 0:
                return at
            at += 1
    while tokens[at][0][0] in "\"'" and at + 1 < len(tokens) and tokens[at + 1][0][0] in "\"'":
        at += 1  # strings beside each other are one
    return at


def edited(text: str, edits: list[Edit]) -> str:
    """Return the text with other words in some places, none of which overlap."""
    for (start, end), new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def named(found: list[TextField], name: str) -> list[Span]:
    """Return the places of all values of a field's name."""
    return [value for field in found if field.name == name for value in field.values]


def string_at(text: str, span: Span) -> str:
    """Return a string without its quotes."""
    return text[span[0] + 1 : span[1] - 1]


def renamed(text: str, name: str) -> str:
    """Return a model's config with another name; one that has none takes its folder's."""
    return edited(text, [(span, f'"{name}"') for span in named(fields(text), "name")])


def with_steps_renamed(text: str, names: Mapping[str, str]) -> str:
    """Return an ensemble's config with other models in some of its steps, by their names."""
    edits: list[Edit] = []
    for scheduling in named(fields(text), "ensemble_scheduling"):
        for step in named(fields(text, scheduling), "step"):
            for span in named(fields(text, step), "model_name"):
                if string_at(text, span) in names:
                    edits.append((span, f'"{names[string_at(text, span)]}"'))
    return edited(text, edits)


def without_labels_file(text: str, output: str) -> str:
    """Return a model's config in which an output has no file of labels."""
    edits: list[Edit] = []
    for span in named(fields(text), "output"):
        inside = fields(text, span)
        if any(string_at(text, one) == output for one in named(inside, "name")):
            edits += [(one.span, "") for one in inside if one.name == "label_filename"]
    return edited(text, edits)


def with_step(text: str, tensor: str, inner: str, step: str) -> str:
    """Return an ensemble's config with one more step, behind the one that makes a tensor.

    Args:
        text: the ensemble's.
        tensor: that an output map of it names, and that the new step makes instead.
        inner: the tensor's name between the two steps.
        step: the new step's message, with its brackets.
    """
    (scheduling,) = named(fields(text), "ensemble_scheduling")
    inside = [one for one in fields(text, scheduling) if one.name == "step"]
    steps = [value for one in inside for value in one.values]
    edits: list[Edit] = []
    for span in steps:
        for entry in named(fields(text, span), "output_map"):
            values = named(fields(text, entry), "value")
            edits += [(one, f'"{inner}"') for one in values if string_at(text, one) == tensor]
    end = steps[-1][1]
    before = without_comments(text)[inside[-1].span[0] : steps[-1][0]]
    listed = "[" in before
    edits.append(((end, end), f",\n{step}" if listed else f"\n  step {step}"))
    return edited(text, edits)
