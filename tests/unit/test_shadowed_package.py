"""Another module of the everyday name ``postprocess`` before ours: the step says which."""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy import entry
from exporters.graph.onnx_signature import of_classifier
from exporters.repository.model_repository import SHIPPED, files

ROOT = Path(__file__).parents[2]
STUB = "import sys; sys.path[:0] = sys.argv[1:]; exec(open(sys.argv[1] + '/model.py').read())"


def load(folder, *path):
    """Run model.py as Triton's stub does, with these folders before all others."""
    return subprocess.run(
        [sys.executable, "-c", STUB, str(folder), *map(str, path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    ).stderr


@pytest.fixture
def folder(tmp_path):
    texts = files("m", of_classifier((8, 8, 1), 10), SHIPPED)
    made = tmp_path / "model"
    made.mkdir()
    (made / "model.py").write_text(texts["m_reverse_sigmoid/1/model.py"])
    return made


@pytest.mark.parametrize("kind", ["file", "package", "folder without __init__"])
def test_what_shadows_the_package_is_named(folder, tmp_path, kind):
    other = tmp_path / "other"
    other.mkdir()
    if kind == "file":
        stands = other / "postprocess.py"
        stands.write_text("def softmax(x): return x\n")
    else:
        (other / "postprocess").mkdir()
        stands = other / "postprocess"
    if kind == "package":
        stands = other / "postprocess" / "__init__.py"
        stands.write_text("")
    said = load(folder, other)
    if kind == "folder without __init__":
        # Python prefers a real package further on the path; an editable install is none of these.
        ours = "No module named 'triton_python_backend_utils'" in said
        assert ours != ("shadows it; rename that" in said)
    else:
        assert f"what stands at {stands} shadows it; rename that" in said


def test_our_own_package_is_taken(folder):
    # Beyond the check only Triton's own modules are missing here.
    assert "No module named 'triton_python_backend_utils'" in load(folder, ROOT)


@pytest.mark.parametrize("name", ["postprocess", "exporters", "load_tests"])
def test_the_command_names_what_shadows_a_package(tmp_path, name):
    other = tmp_path / name / "__init__.py"
    other.parent.mkdir()
    other.write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import deploy.entry"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; deploy.entry.main()", "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"reverse-sigmoid: needs its own package {name}, and what stands at {other} shadows it; "
        "rename that, or take it off Python's path\n"
    )


def test_an_interruption_while_packages_are_looked_for_ends_quietly(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "shadowed", interrupted)
    with pytest.raises(SystemExit) as end:
        entry.run()
    assert (end.value.code, capsys.readouterr().err) == (130, "")
