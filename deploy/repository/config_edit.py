"""Other values for the parameters of a config.pbtxt, with everything else left as it is."""

import re
from collections.abc import Mapping

#: A string of the text format, in either kind of quotes.
STRING = r"""(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
_COMMENT = re.compile(rf"({STRING})|#[^\n]*")
_ENTRY = re.compile(
    rf"[ \t]*\bparameters\s*:?\s*\{{\s*key\s*:\s*(?P<key>{STRING})\s*[,;]?\s*"
    rf"value\s*:?\s*\{{\s*string_value\s*:\s*(?P<value>{STRING})\s*\}}\s*[,;]?\s*\}}[ \t]*\n?"
)


def set_parameters(text: str, changes: Mapping[str, str | None]) -> str:
    """Return the text with other values; comments, order and spacing stay.

    Args:
        text: of a config.pbtxt.
        changes: key to new value, None to take the parameter out. A key that is not there yet
            is added at the end.

    A parameter that is written in a form that this does not know (``parameters [ ... ]``) is
    not found: callers read the result and compare.
    """
    for key, value in changes.items():
        bare = without_comments(text)
        entries = [one for one in _ENTRY.finditer(bare) if one["key"][1:-1] == key]
        for one in reversed(entries):
            if value is None:
                text = text[: one.start()] + text[one.end() :]
            else:
                start, end = one.span("value")
                text = f'{text[:start]}"{value}"{text[end:]}'
        if not entries and value is not None:
            ended = text if text.endswith("\n") or not text else text + "\n"
            text = f'{ended}parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}\n'
    return text


def without_comments(text: str) -> str:
    """Return the text with blanks for comments, as many, so that places stay the same."""
    return _COMMENT.sub(lambda found: found[1] or " " * len(found[0]), text)
