"""Packages that are imported without a word on stderr, and without what they do not need."""

import os
import sys
from importlib import import_module

import pytest

from exporters import quiet_import
from exporters.quiet_import import import_quietly

UNUSED = ("plots_of_nobody", "tables_of_nobody")
GREETS = """
import os
from importlib import import_module

found = []
for name in {names}:
    try:
        import_module(name)
    except ImportError:
        continue
    found.append(name)
os.write(2, b"hello from C++")
"""


@pytest.fixture
def greeting(tmp_path, monkeypatch):
    """Write a module that says something on stderr and uses what is installed."""
    monkeypatch.setattr(quiet_import, "UNUSED", UNUSED)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "greeting.py").write_text(GREETS.format(names=UNUSED))
    for name in UNUSED:
        (tmp_path / f"{name}.py").write_text("")
    yield tmp_path / "greeting.py"
    for name in ("greeting", *UNUSED):
        sys.modules.pop(name, None)


def test_what_is_not_needed_is_not_there_meanwhile_and_is_again_afterwards(greeting, capfd):
    import_quietly("greeting")
    assert sys.modules["greeting"].found == []
    assert capfd.readouterr().err == ""
    assert [import_module(name).__name__ for name in UNUSED] == list(UNUSED)


@pytest.mark.parametrize(("given", "then"), [(None, "1"), ("0", "0"), ("", "")])
def test_tensorflow_calculates_by_onednn_unless_told_otherwise(given, then, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "to be set back")
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    if given is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", given)
    import_quietly("json")
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == then


def test_what_was_imported_before_stays_and_a_failure_is_told(greeting, capfd):
    first = import_module(UNUSED[0])
    greeting.write_text(greeting.read_text() + "\nraise ValueError('broken')")
    with pytest.raises(ValueError, match="broken"):
        import_quietly("greeting")
    assert capfd.readouterr().err == "hello from C++"
    assert sys.modules[UNUSED[0]] is first
    assert not set(UNUSED[1:]) & set(sys.modules)
