"""Paths of a model repository that Triton's Python backend can and cannot read."""

from pathlib import Path

import pytest

from exporters.files import servable_path
from postprocess.errors import InputError


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my models", "hangs on a path with white space"),
        ("two\nlines", "hangs on a path with white space"),
        ("a\tb", "hangs on a path with white space"),
        ("a\u00a0b", "hangs on a path with white space"),
        ("über", "cannot read a path with 'ü', not ASCII"),
        ("u\u0308ber", "not ASCII"),
        ("模型", "not ASCII"),
        ("latin\udce4", "not ASCII"),
        *((f"a{one}b", "which a shell reads") for one in "\"'`$&|;<>()*?[]{}\\\x01\x7f"),
        ("/".join(["x" * 200] * 18), "cannot read a path of"),
    ],
)
def test_a_path_that_triton_cannot_read_is_refused_with_a_way_out(tmp_path, name, said):
    with pytest.raises(InputError) as refused:
        servable_path.refuse(tmp_path / name / "models")
    assert said in str(refused.value)
    assert "move the model repository" in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "name", ["plain", "a-b_c.d", "a:b", "a,b=c@d", "a+b^c%20", "~a#b!", "x" * 250]
)
def test_a_path_that_triton_reads_is_taken(tmp_path, name):
    servable_path.refuse(tmp_path / name)


def test_a_relative_path_is_told_with_the_folders_that_it_does_not_say(tmp_path, monkeypatch):
    (tmp_path / "my models").mkdir()
    monkeypatch.chdir(tmp_path / "my models")
    with pytest.raises(InputError, match=r"/my models/models: .* white space"):
        servable_path.refuse(Path("models"))


def test_a_link_is_judged_by_where_it_leads(tmp_path):
    (tmp_path / "my models").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "my models")
    with pytest.raises(InputError, match=r"link, which leads to '.*my models': .* white space"):
        servable_path.refuse(tmp_path / "link")


def test_a_temporary_folder_is_refused_with_the_variable_that_names_it(tmp_path):
    servable_path.refuse_temporary(tmp_path)
    for name in ("my temporaries", "a:b"):
        with pytest.raises(InputError, match="let TMPDIR name another folder"):
            servable_path.refuse_temporary(tmp_path / name)
