import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from commands import call_command, run_command
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner

from deploy.commands.app import COMMANDS, app

TUNE = ("tune", "--repository", "models", "--model", "digits", "--data", "digits", "--out", "tuned")
#: Packages that take long to import.
HEAVY = {"tensorflow", "keras", "onnx", "onnxruntime", "tf2onnx", "sklearn", "scipy", "matplotlib",
         "tritonclient", "grpc", "pytriton", "envoy", "yaml", "locust", "gevent"}  # fmt: skip
NUMBER = "expected a number from 0.001 to 100"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("export", "mnits"), "unknown data set 'mnits'; known are digits, mnist, fashion_mnist"),
        (("export", "digits", "--architecture", "resnet"), "unknown architecture 'resnet'"),
        (
            ("export", "digits", "--name", "../x"),
            "expected a model name of 1 to 100 letters, digits",
        ),
        (
            ("export", "digits", "--name", "a/b"),
            "expected a model name of 1 to 100 letters, digits",
        ),
        (("export", "digits", "--beta", "-1"), f"parameter beta: {NUMBER}, got -1"),
        (("export", "digits", "--beta", "0"), f"parameter beta: {NUMBER}, got 0"),
        (("export", "digits", "--beta", "nan"), f"parameter beta: {NUMBER}, got 'nan'"),
        (("export", "digits", "--gamma", "abc"), f"parameter gamma: {NUMBER}, got 'abc'"),
        (("demo", "--margin", "2"), "parameter margin: expected a number from 0 to 0.9, got 2"),
        (("export", "stl10"), "stl10 needs --data-dir with its published files"),
        (("export", "mnist", "--data-dir", "absent"), "--data-dir absent: no such folder"),
        (("protect", "absent.onnx", "--repository", "r"), "absent.onnx: no such file"),
        (("protect", "absent.onnx"), "Missing option '--repository'"),
        (
            ("protect", "a.onnx", "--repository", "r", "--scores", "odds"),
            "--scores: expected logits or probabilities, got 'odds'",
        ),
        (
            ("protect", "a b.onnx", "--repository", "r"),
            "expected a model name of 1 to 100 letters, digits",
        ),
        (
            ("protect", "a.onnx", "--repository", "r", "--layout", "inside"),
            "--layout: expected ensemble or fused, got 'inside'",
        ),
        (
            ("protect", "a.onnx", "--repository", "r", "--beta", "x"),
            f"parameter beta: {NUMBER}, got 'x'",
        ),
        (("serve", "absent"), "absent: no such model repository"),
        (
            ("serve", Path(__file__).parents[2] / "model_repository" / "digits"),
            "got one model of it; serve ",
        ),
        (
            ("serve", ".", "--grpc-port", "99999"),
            "--grpc-port 99999: expected a port from 1 to 65535",
        ),
        (("serve", ".", "--grpc-port", "8000"), "--grpc-port 8000: the same as --http-port 8000"),
        (("serve", ".", "--address", "127.0.0"), "expected an IPv4 address, got '127.0.0'"),
        (("serve", "x" * 300), "File name too long"),
        (("serve", ".", "--probe-seconds", "nan"), "Invalid value for '--probe-seconds'"),
        (("serve", ".", "--probe-seconds", "inf"), "--probe-seconds: expected a number, got inf"),
        (("serve", ".", "--probe-timeout-seconds", "inf"), "expected a number, got inf"),
        (("paper", "--out", "x", "--minutes", "inf"), "--minutes: expected a number, got inf"),
        (("demo", "--seed", "-1"), "Invalid value for '--seed'"),
        (("export",), "Missing argument 'DATASET'"),
        (("demo", "--out", "my demo"), "/my demo/model_repository: Triton's Python backend hangs"),
        (
            (
                "attack",
                "sample",
                "--model",
                "m",
                "--url",
                "http://h:1",
                "--data",
                "digits",
                "--queries",
                "9",
                "--out",
                "o",
            ),
            "--url: expected HOST:PORT, got 'http://h:1'",
        ),
        (("export", "digits", "--steps", "0"), "Invalid value for '--steps'"),
        (("demo", "--bata", "1"), "No such option: --bata"),
    ],
)
def test_bad_input_exits_with_1_and_one_line_and_writes_nothing(tmp_path, arguments, said):
    done = call_command(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("reverse-sigmoid: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.count("reverse-sigmoid: ") == 1
    assert list(tmp_path.iterdir()) == []


def test_export_does_not_overwrite_silently(tmp_path):
    onnx = tmp_path / "model_repository" / "digits_classifier" / "1" / "model.onnx"
    onnx.parent.mkdir(parents=True)
    onnx.write_text("theirs")
    done = call_command("export", "digits", cwd=tmp_path)
    assert done.returncode == 1
    assert "exists; give --force to train anew and replace it" in done.stderr
    assert onnx.read_text() == "theirs"

    config = tmp_path / "model_repository" / "digits_reverse_sigmoid" / "config.pbtxt"
    config.parent.mkdir()
    config.write_text("theirs")
    done = call_command("export", "digits", "--force", "--beta", "0.5", cwd=tmp_path)
    assert done.returncode == 1
    assert "exists; set beta, gamma and margin in it" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "extra", "arguments"),
    [
        ("tensorflow", "export", ("export", "digits", "--steps", "1")),
        ("sklearn", "export", ("export", "digits", "--steps", "1")),
        ("onnx", "export", ("protect", "model.onnx", "--repository", "models")),
        ("pytriton", "serve", ("serve", ".")),
        ("scipy", "attack", ("demo", "--steps", "1")),
        ("keras", "paper", ("paper", "--scale", "smoke", "--out", "results")),
        ("scipy", "paper", ("paper", "--scale", "smoke", "--out", "results")),
        ("keras", "export", TUNE),
        ("matplotlib", "attack", TUNE),
        ("matplotlib", "attack", ("attack", "all", "--model", "digits", "--out", "stolen")),
        ("typer", "all", ("--help",)),
    ],
)
def test_a_missing_extra_names_its_install_command(tmp_path, module, extra, arguments):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    # An interpreter in which the module is not to be found, as in an install without the extra.
    (hidden / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {module!r}:\n"
        f"            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    (tmp_path / "model.onnx").touch()
    done = run_command(*arguments, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(hidden)})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"reverse-sigmoid: needs {module}, which is not installed: "
        f"in the clone of its repository, python -m pip install -c deploy/constraints.txt "
        f"-e '.[{extra}]'"
    )
    assert "Traceback" not in done.stderr


def helped(*arguments):
    """Return what a wide terminal shows of a help, and the packages that were imported for it."""
    code = (
        "import sys\n"
        "from deploy.commands.app import run\n"
        f"sys.argv[1:] = {[*arguments, '--help']}\n"
        "assert run() == 0\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "400"},
    )
    return done.stdout, {name.partition(".")[0] for name in done.stderr.split()}


def test_help_names_every_command_and_imports_none():
    text, imported = helped()
    shown = re.findall(
        r"^\W*([a-z]+) {2,}(\w.*?) *│?$", text.partition("Commands")[2], re.MULTILINE
    )
    assert shown == list(COMMANDS.items())
    assert not imported & {*HEAVY, "numpy", "exporters", "load_tests"}


def parameters(name):
    """Return a command's arguments and options, as they are declared."""
    group = typer.main.get_command(app)
    with group.make_context("reverse-sigmoid", [name]) as context:
        _, command, _ = group.resolve_command(context, [name])
    assert command.params
    return command.params


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_is_whole_and_imports_little(name):
    text, imported = helped(name)
    assert COMMANDS[name] in text
    for option in parameters(name):
        if option.param_type_name == "option":
            assert option.help
            written, said = option.opts[0], re.escape(option.help)
            assert re.search(rf"{written} .*(\n *)?{said}", text), option.help
    assert not imported & HEAVY


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_a_narrow_terminal_cuts_no_name(name):
    words = [name, "--help"] if name else ["--help"]
    shown = CliRunner().invoke(app, words, env={"COLUMNS": "80"}).output
    assert max(map(len, shown.splitlines())) <= 80
    for option in parameters(name) if name else []:
        for written in (*option.opts, *option.secondary_opts, option.envvar):
            if option.param_type_name == "option" and written:
                assert re.search(rf"{re.escape(written)}(?![\w-])", shown), written
    assert "…" not in shown


def test_no_command_shows_the_help(tmp_path):
    done = run_command(cwd=tmp_path)
    assert done.returncode == 2
    assert "Usage: reverse-sigmoid" in done.stdout
    assert "(see --help)" not in done.stderr


def test_what_triton_says_where_nobody_expects_it_is_one_line(monkeypatch, tmp_path):
    def broken(**_):
        raise InferenceServerException("gone")

    monkeypatch.setattr("deploy.commands.app.app", broken)
    done = call_command("check", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "reverse-sigmoid: Triton: gone\n")
