"""One mistake at a time in the worked example, each with what check says about it."""

import json
import re
import shutil
from pathlib import Path

import pytest
import trustme
from commands import call_command
from gateways import write_files

ROOT = Path(__file__).parents[2]
DEFENCE, VICTIM = "digits_reverse_sigmoid", "digits_classifier"
REACHABLE = ("warning", "raw-reachable")


@pytest.fixture
def repository(tmp_path):
    copy = shutil.copytree(ROOT / "model_repository", tmp_path / "repository")
    (copy / VICTIM / "1" / "model.onnx").touch()
    return copy


def edit(repository, model, old, new):
    config = repository / model / "config.pbtxt"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


def set_parameter(repository, name, text):
    config = repository / DEFENCE / "config.pbtxt"
    pattern = rf'(parameters {{ key: "{name}" value: {{ string_value: ")[^"]*'
    changed, count = re.subn(pattern, rf"\g<1>{text}", config.read_text())
    assert count == 1
    config.write_text(changed)


def add(repository, line, model=DEFENCE):
    with (repository / model / "config.pbtxt").open("a") as config:
        config.write(line + "\n")


def parameter(name, text):
    return f'parameters {{ key: "{name}" value: {{ string_value: "{text}" }} }}'


def check(repository):
    done = call_command("check", repository, "--json", cwd=repository.parent)
    assert done.stderr == ""
    report = json.loads(done.stdout)
    found = [(each["level"], each["code"]) for each in report["findings"]]
    assert done.returncode == (1 if "error" in dict(found) else 0)
    return report


def codes(report):
    return [
        (each["level"], each["code"])
        for each in report["findings"]
        if each["code"] != "raw-reachable"
    ]


def test_the_worked_example_has_no_fault_but_that_its_victim_can_be_reached(repository):
    report = check(repository)
    (finding,) = report["findings"]
    assert (finding["level"], finding["code"], finding["model"]) == (*REACHABLE, VICTIM)
    assert report["models"] == 3
    assert report["defences"][DEFENCE]["beta"] == 1.5


def test_people_get_a_line_for_each_finding_and_a_sum(repository):
    set_parameter(repository, "beta", "-1")
    done = call_command("check", repository, cwd=repository.parent)
    assert done.returncode == 1
    first, *_, last = done.stdout.splitlines()
    config = repository / DEFENCE / "config.pbtxt"
    assert first == (
        f"error   defence: {config}: parameter beta: expected a number from 0.001 to 100, got -1"
    )
    assert last == f"{repository}: 3 models, 1 error, 1 warning"


@pytest.mark.parametrize(
    ("name", "text", "level", "code"),
    [
        ("beta", "-1", "error", "defence"),
        ("beta", "nan", "error", "defence"),
        ("defense", "nothing", "error", "defence"),
        ("defense", "sine", "error", "defence"),
        ("preserve_top1", "false", "warning", "top1-not-kept"),
        ("beta", "0.9", "warning", "weak"),
        ("beta", "0.21", "warning", "helps-the-thief"),
        ("gamma", "1", "warning", "no-ambiguity"),
        ("gamma", "0.8", "warning", "no-ambiguity"),
        ("margin", "0", "warning", "margin-below-resolution"),
        ("margin", "0.2", "warning", "weak"),
        ("defense", "none", "warning", "defense-none"),
    ],
)
def test_a_parameter_is_judged_as_the_load_and_experience_judge_it(
    repository, name, text, level, code
):
    set_parameter(repository, name, text)
    assert (level, code) in codes(check(repository))


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (parameter("bata", "1"), "defence", "did you mean beta?"),
        (parameter("beta", "0.5"), "duplicate-parameter", "beta: expected once, got 2 times"),
        (parameter("key_file", "key"), "defence", "parameter key_file: retired: "),
        (parameter("decoy", "10"), "defence", "write defense decoy, without decoy, key_file"),
        ("max_batch_sise: 3", "config", 'no field named "max_batch_sise"'),
        ("parameters {", "config", "config.pbtxt: "),
        ('input [ { name: "x" data_type: TYPE_FP32 dims: [ 10 ] } ]', "defence", "exactly one"),
    ],
)
def test_a_line_too_many_is_an_error_that_says_so(repository, line, code, said):
    add(repository, line)
    report = check(repository)
    (message,) = [each["message"] for each in report["findings"] if each["code"] == code]
    assert said in message
    assert str(repository / DEFENCE / "config.pbtxt") in message


@pytest.mark.parametrize(
    ("model", "old", "new", "code", "said"),
    [
        (DEFENCE, "dims: [ 10 ]", "dims: [ 11 ]", "step", "expected dims [10], got [11]"),
        (DEFENCE, "TYPE_FP32", "TYPE_FP16", "step", "expected TYPE_FP32, got TYPE_FP16"),
        (DEFENCE, "max_batch_size: 256", "max_batch_size: 8", "batch", "expected at most 8"),
        (VICTIM, "max_batch_size: 256", "max_batch_size: 0", "batch", "expected 0, as step"),
        (VICTIM, '"scores"', '"logits"', "step", "output_map scores: expected logits"),
        ("digits", 'model_name: "digits_c', 'model_name: "c', "step", "step classifier: expected"),
        ("digits", 'name: "digits"', 'name: "digit"', "name", "expected the folder's, digits"),
        (
            "digits",
            'output [ { name: "scores"',
            'output [ { name: "victim_scores" data_type: TYPE_FP32 dims: [ 10 ] },'
            ' { name: "scores"',
            "raw-output",
            "output victim_scores: expected what a defence makes",
        ),
        (
            "digits",
            'output [ { name: "scores"',
            'output [ { name: "other" data_type: TYPE_FP32 dims: [ 10 ] }, { name: "scores"',
            "step",
            "output other: expected a step that makes it",
        ),
    ],
)
def test_steps_that_do_not_fit_or_leak_are_errors(repository, model, old, new, code, said):
    edit(repository, model, old, new)
    report = check(repository)
    messages = [each["message"] for each in report["findings"] if each["code"] == code]
    assert any(said in message for message in messages), report["findings"]


def test_an_ensemble_that_leaves_the_defence_out_is_an_error(repository):
    shutil.copytree(repository / "digits", repository / "raw")
    text = (repository / "digits" / "config.pbtxt").read_text()
    text = text.replace('name: "digits"', 'name: "raw"', 1)
    start = text.index("    },\n    {")
    end = text.index("    }\n  ]")
    text = text[:start] + text[end:]
    text = text.replace('value: "victim_scores"', 'value: "scores"')
    (repository / "raw" / "config.pbtxt").write_text(text)
    report = check(repository)
    assert ("error", "raw-ensemble") in codes(report)


def test_a_version_that_is_put_into_the_ensemble_is_told_to_have_no_effect(repository):
    (repository / "digits" / "2").mkdir()
    (repository / "digits" / "2" / "model.onnx").write_bytes(b"newer")
    found = [one for one in check(repository)["findings"] if one["code"] == "not-served"]
    (said,) = [one["message"] for one in found if one["level"] == "warning"]
    assert said == (
        f"{repository / 'digits' / '2' / 'model.onnx'}: no file of an ensemble is served; a new "
        f"version is one of its steps': {VICTIM} or {DEFENCE}"
    )


IMAGE, SCORES = "TYPE_FP32 dims: [ 8, 8, 1 ]", "TYPE_FP32 dims: [ 10 ]"


def write_model(repository, name, taken, made, steps=()):
    """Write a model of one input and output; with steps, (model, its tensors), an ensemble."""
    tensors = [f'{side} [ {{ name: "{tensor}" data_type: {kind} }} ]'
               for side, (tensor, kind) in (("input", taken), ("output", made))]  # fmt: skip
    listed = ", ".join(
        f'{{ model_name: "{model}" model_version: -1 input_map {{ key: "{key}" value: "{got}" }} '
        f'output_map {{ key: "{out}" value: "{given}" }} }}'
        for model, (key, got), (out, given) in steps
    )
    last = f"ensemble_scheduling {{ step [ {listed} ] }}" if steps else 'backend: "onnxruntime"'
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1" / ("model.onnx" if not steps else ".gitkeep")).touch()
    lines = (f'name: "{name}"', "max_batch_size: 256", *tensors, last)
    (repository / name / "config.pbtxt").write_text("\n".join(lines) + "\n")


def test_scores_are_raw_in_every_step_before_the_defence(repository):
    image, scores = ("x", IMAGE), ("y", SCORES)
    write_model(repository, "scaler", image, image)
    write_model(repository, "softmaxer", scores, scores)
    shutil.rmtree(repository / "digits")
    # A classifier in an ensemble of its own, something before it and something after it.
    inner = [("scaler", ("x", "x"), ("x", "z")), (VICTIM, ("image", "z"), ("scores", "y"))]
    write_model(repository, "inner", image, scores, inner)
    outer = [
        ("inner", ("x", "image"), ("y", "logits")),
        ("softmaxer", ("y", "logits"), ("y", "raw")),
        (DEFENCE, ("victim_scores", "raw"), ("scores", "scores")),
    ]
    write_model(repository, "digits", ("image", IMAGE), ("scores", SCORES), outer)
    write_model(repository, "debug", ("image", IMAGE), ("scores", SCORES),
                [(VICTIM, ("image", "image"), ("scores", "scores"))])  # fmt: skip
    write_model(repository, "ready", ("image", IMAGE), ("x", IMAGE),
                [("scaler", ("x", "image"), ("x", "x"))])  # fmt: skip
    found = check(repository)["findings"]
    told = {level: {one["model"] for one in found if one["level"] == level} for level in
            ("warning", "error")}  # fmt: skip
    assert {one["code"] for one in found} == {"raw-reachable", "raw-ensemble"}
    assert told == {"warning": {VICTIM, "inner", "softmaxer"}, "error": {"debug"}}


@pytest.mark.parametrize("model", [DEFENCE, "digits"])
def test_answers_that_triton_keeps_are_warned_of_where_they_were_defended(repository, model):
    for each in (model, VICTIM):  # raw scores may be kept: the defence sees them all the same
        add(repository, "response_cache { enable: true }", each)
    found = [one for one in check(repository)["findings"] if one["code"] == "response-cache"]
    assert [one["model"] for one in found] == [model]
    assert "may outlive other parameters" in found[0]["message"]


def test_what_is_missing_is_named(repository):
    (repository / VICTIM / "1" / "model.onnx").unlink()
    shutil.rmtree(repository / DEFENCE / "1")
    (repository / "digits" / "config.pbtxt").unlink()
    report = check(repository)
    said = {each["code"]: each["message"] for each in report["findings"]}
    assert said["no-file"] == f"{repository / VICTIM / '1' / 'model.onnx'}: no such file"
    assert said["no-version"].startswith(f"{repository / DEFENCE}: expected a version folder")
    assert said["config"] == (
        f"{repository / 'digits' / 'config.pbtxt'}: cannot be read: No such file or directory"
    )


def test_a_config_of_name_backend_and_parameters_alone_is_whole(repository):
    keep = [
        line
        for line in (repository / DEFENCE / "config.pbtxt").read_text().splitlines()
        if line.startswith(("name", "backend", "parameters"))
    ]
    (repository / DEFENCE / "config.pbtxt").write_text("\n".join(keep))
    report = check(repository)
    assert codes(report) == []
    assert report["defences"][DEFENCE]["gamma"] == 0.2


def test_what_is_no_repository_is_refused(tmp_path):
    done = call_command("check", tmp_path / "absent", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"reverse-sigmoid: {tmp_path / 'absent'}: no such model repository\n"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert codes(check(empty)) == [("error", "no-models")]


def test_what_is_no_repository_gets_one_clear_line(tmp_path):
    (tmp_path / "other" / "folder").mkdir(parents=True)
    done = call_command("check", tmp_path / "other", cwd=tmp_path)
    assert done.returncode == 1
    assert "no model there: expected folders with a config.pbtxt each" in done.stdout
    file = tmp_path / "file"
    file.touch()
    done = call_command("check", file, cwd=tmp_path)
    assert done.stderr == f"reverse-sigmoid: {file}: expected a folder of models\n"
    spaced = tmp_path / "my models"
    spaced.mkdir()
    assert "hangs on a path with white space" in call_command("check", spaced, cwd=tmp_path).stdout


def operator_file(folder, clients):
    (folder / "alice.key").write_text("alice-0123456789abcdef")
    (folder / "alice.key").chmod(0o600)
    path = folder / "operator.yaml"
    path.write_text(
        "listen: 127.0.0.1:8443\ntls: off\nclients:\n"
        f"  alice: {{key_file: alice.key, queries: unlimited, {clients}}}\n"
    )
    return path


@pytest.mark.parametrize(
    ("clients", "level", "said"),
    [
        ("models: [digits]", None, None),
        ("models: [digts]", "error", "models: digts, for alice, is no protected model of this "
         "repository; those are digits"),
        (f"models: [{VICTIM}]", "error", "raw scores are for a client with a list of its own and "
         "raw: true"),
        (f"models: [digits, {VICTIM}], raw: true", "warning",
         f"RAW: alice gets the scores of {VICTIM}, as its raw: true says"),
        ("models: [digits], raw: true", "error", "all protected; leave raw out"),
        ("modles: [digits]", "error", "unknown key 'modles'; did you mean models?"),
    ],
)  # fmt: skip
def test_an_operators_file_is_held_against_the_repository(
    repository, tmp_path, clients, level, said
):
    path = operator_file(tmp_path, clients)
    done = call_command("check", repository, "--gateway", path, "--json", cwd=tmp_path)
    findings = [one for one in json.loads(done.stdout)["findings"]
                if one["code"] in ("gateway", "raw-access")]  # fmt: skip
    assert done.returncode == (level == "error")
    assert [one["level"] for one in findings] == ([level] if level else [])
    assert all(said in one["message"] for one in findings)


def test_a_certificate_and_another_s_key_are_found_before_serve_finds_them(repository, tmp_path):
    files = write_files(tmp_path, more="queries_per_request: 256\n")

    def found():
        done = call_command("check", repository, "--gateway", files.path, "--json", cwd=tmp_path)
        said = json.loads(done.stdout)["findings"]
        return [one["message"] for one in said if one["code"] == "gateway"]

    assert found() == []
    other = trustme.CA().issue_cert("localhost").private_key_pem
    other.write_to_path(tmp_path / "server.key")
    (said,) = found()
    assert "expected a certificate and its own key, PEM files" in said


def test_serve_refuses_what_its_gateway_would_open_before_triton_starts(repository, tmp_path):
    path = write_files(tmp_path, models=(VICTIM,)).path
    done = call_command("serve", repository, "--gateway", path, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"reverse-sigmoid: {path}: models: {VICTIM}, for alice, bob, is no protected model of "
        "this repository; those are digits; raw scores are for a client with a list of its own "
        "and raw: true\n"
    )
    assert not (tmp_path / "triton.log").exists()


def test_a_defence_called_none_opens_raw_scores_and_is_refused_as_such(repository, tmp_path):
    edit(repository, DEFENCE, '"reverse_sigmoid"', '"none"')
    path = operator_file(tmp_path, "models: [digits]")
    done = call_command("check", repository, "--gateway", path, cwd=tmp_path)
    assert done.returncode == 1
    assert "models: digits, for alice, is no protected model" in " ".join(done.stdout.split())


def raw_output(repository, kind="FP32"):
    """Give clients the victim's own scores too, beside the protected ones."""
    edit(
        repository,
        "digits",
        "output [",
        f"""output [
  {{ name: "raw" data_type: TYPE_{kind} dims: [ 10 ] }},""",
    )
    edit(
        repository,
        "digits",
        'model_name: "digits_classifier"',
        """model_name: "digits_classifier"
      output_map { key: "more" value: "raw" }""",
    )


@pytest.mark.parametrize("kind", ["FP32", "BF16"])
def test_scores_beside_the_protected_ones_are_raw_to_check_and_to_a_gateway(
    repository, tmp_path, kind
):
    raw_output(repository, kind)
    path = operator_file(tmp_path, "models: [digits]")
    done = call_command("check", repository, "--gateway", path, cwd=tmp_path)
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert "raw-output: " in said
    assert (
        "models: digits, for alice, is no protected model of this repository: no defence makes its "
        "output raw; those are none"
    ) in said


def test_scores_beside_the_protected_ones_are_for_who_may_have_raw_ones(repository, tmp_path):
    raw_output(repository)
    path = operator_file(tmp_path, "models: [digits], raw: true")
    done = call_command("check", repository, "--gateway", path, cwd=tmp_path)
    assert "RAW: alice gets the scores of digits, as its raw: true says" in " ".join(
        done.stdout.split()
    )


def test_a_version_set_aside_is_an_error_where_triton_would_serve_it(repository):
    aside = repository / VICTIM / "2_old"
    aside.mkdir()
    assert ("error", "misread-version") in codes(check(repository))
    aside.rename(repository / VICTIM / "old_2")
    assert codes(check(repository)) == []
    # As Triton does, with 1 there: it passes over leading zeros and other digits.
    for name in ("1.bak", "02", "\uff12"):
        (repository / VICTIM / name).mkdir()
    assert codes(check(repository)) == []


@pytest.mark.parametrize("more", ["", 'default_model_filename: "other.py"'])
def test_a_defence_in_name_alone_is_an_error(repository, more):
    code = "class TritonPythonModel:\n    pass\n"
    add(repository, more)
    (repository / DEFENCE / "1" / ("other.py" if more else "model.py")).write_text(code)
    assert ("error", "no-defence") in codes(check(repository))


def test_scores_that_a_defence_gets_in_another_shape_are_an_error(repository):
    for old in ("input [", "output ["):
        edit(repository, DEFENCE, f"{old} {{ ", f"{old} {{ reshape: {{ shape: [ 2, 5 ] }} ")
    report = check(repository)
    assert ("error", "defence") in codes(report)
    said = [one["message"] for one in report["findings"] if one["code"] == "defence"]
    assert "input: expected no reshape, got {'shape': ['2', '5']}" in said[0]
