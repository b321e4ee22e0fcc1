import pytest
from commands import call_command
from rich.console import Console

from deploy.commands import serve

pytestmark = pytest.mark.slow

MODELS = ("--protected", "digits", "--unprotected", "digits_classifier")
NOBODY = ("--url", "127.0.0.1:1", *MODELS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (NOBODY, "127.0.0.1:1, model digits: failed to connect to all addresses"),
        (MODELS, "Missing option '--url'"),
        (("--url", "127.0.0.1:1", "--protected", "digits"), "Missing option '--unprotected'"),
        (
            ("--url", "http://127.0.0.1:8001", *MODELS),
            "--url: expected HOST:PORT, got 'http://127.0.0.1:8001'",
        ),
        (("--url", "localhost", *MODELS), "--url: expected HOST:PORT"),
        (("--url", "localhost:99999", *MODELS), "--url: expected HOST:PORT"),
        (
            (*NOBODY, "--batch", "1,0"),
            "--batch: expected whole numbers from 1 to 65536, separated by commas, got '1,0'",
        ),
        ((*NOBODY, "--batch", "1,,2"), "--batch: expected whole numbers"),
        ((*NOBODY, "--batch", ""), "--batch: expected whole numbers"),
        ((*NOBODY, "--batch", "1;2"), "--batch: expected whole numbers"),
        ((*NOBODY, "--batch", "70000"), "--batch: expected whole numbers"),
        ((*NOBODY, "--batch", "9" * 5000), "--batch: expected whole numbers"),
        (
            (*NOBODY, "--concurrency", "-1"),
            "--concurrency: expected whole numbers from 1 to 1024, separated by commas, got '-1'",
        ),
        ((*NOBODY, "--concurrency", "1.5"), "--concurrency: expected whole numbers"),
        ((*NOBODY, "--seconds", "0"), "--seconds: expected a number above 0, got 0"),
        ((*NOBODY, "--seconds", "nan"), "--seconds: expected a number, got nan"),
        ((*NOBODY, "--seconds", "inf"), "--seconds: expected a number, got inf"),
        ((*NOBODY, "--rounds", "1"), "Invalid value for '--rounds'"),
        ((*NOBODY, "--seed", "-1"), "Invalid value for '--seed'"),
        ((*NOBODY, "--data", "mnits"), "unknown data set 'mnits'; known are digits, mnist"),
        ((*NOBODY, "--data", "mnist", "--data-dir", "absent"), "absent: no such folder"),
    ],
)
def test_bad_input_exits_with_1_and_one_line_and_writes_nothing(tmp_path, arguments, said):
    done = call_command("overhead", *arguments, "--out", "report.json", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("reverse-sigmoid: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


NOWHERE = "/proc/no/out: cannot be written: No such file or directory"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("overhead", *NOBODY, "--out", "/proc/no/out"), f"--out {NOWHERE}"),
        (("benchmark", "--repository", ".", "--model", "m", "--out", "/proc/no/out"),
         f"--out {NOWHERE}"),
        (("serve", ".", "--gateway", "o.yaml", "--access-log", "/proc/no/out"),
         f"--access-log {NOWHERE}"),
        (("serve", ".", "--gateway", "o.yaml", "--access-log", "."),
         "--access-log .: expected a file, got a folder"),
    ],
)  # fmt: skip
def test_what_could_not_be_written_is_refused_before_anything_is_done(tmp_path, arguments, said):
    done = call_command(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, f"reverse-sigmoid: {said}\n")


def test_an_access_log_without_a_gateway_is_refused(tmp_path):
    done = call_command("serve", ".", "--access-log", "access.jsonl", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "reverse-sigmoid: --access-log: the gateway writes it; give --gateway too\n"
    )


def test_a_line_that_cannot_be_said_stops_nothing(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(serve, "err_console", Console(file=full))
        serve._report("the disk is full")
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space left"):
            full.close()


def test_a_report_is_not_overwritten_silently(tmp_path):
    (tmp_path / "report.json").write_text("theirs")
    done = call_command("overhead", *NOBODY, "--out", "report.json", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == ("reverse-sigmoid: report.json exists; give --force to replace it\n")
    assert (tmp_path / "report.json").read_text() == "theirs"


def test_help_says_what_is_measured_and_the_defaults(tmp_path):
    said = call_command("overhead", "--help", cwd=tmp_path).stdout
    for text in ("interleaved", "1,32,256", "1,8,32", "--under-attack", "--seconds", "--json"):
        assert text in said
    assert "overhead" in call_command("--help", cwd=tmp_path).stdout
