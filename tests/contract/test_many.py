"""Several models in one call: a line for each, and one that fails loses none of the others."""

import json

import pytest
from commands import call_command
from existing_models import ELSEWHERE, contents, elsewhere, parsed, pipeline, protect
from victims import FLOAT, SOFTMAX, graph_file, linear_file, node, rng

from deploy.existing import listing, undoing
from exporters.protect import protect as protect_file
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED
from postprocess.errors import InputError

TOLD = ELSEWHERE["fil"][1]


def names(folder):
    return sorted(one.name for one in folder.iterdir())


def behind(*public):
    ends = ("", "_classifier", "_reverse_sigmoid")
    return sorted(f"{name}{end}" for name in public for end in ends)


def test_files_are_each_protected_and_one_that_fails_is_named(tmp_path):
    linear_file(tmp_path / "a.onnx", SOFTMAX)
    linear_file(tmp_path / "b.onnx")
    (tmp_path / "bad.onnx").write_text("no graph")
    done = call_command(
        "protect", "a.onnx", "bad.onnx", "gone.onnx", "b.onnx", "--repository", "models",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("reverse-sigmoid: ")]
    assert [line.split(": ")[1] for line in said] == ["bad.onnx", "gone.onnx"]
    assert "not a readable ONNX file" in said[0]
    rows = {line.split()[1]: line for line in done.stdout.splitlines() if ".onnx" in line}
    assert list(rows) == ["a.onnx", "b.onnx", "bad.onnx", "gone.onnx"]
    assert rows["a.onnx"].split()[3] == "a"
    assert "not protected" in rows["bad.onnx"]
    assert names(tmp_path / "models") == behind("a", "b")

    again = call_command(
        *("protect", "a.onnx", "bad.onnx", "--repository", "models", "--force", "--json"),
        cwd=tmp_path,
    )
    first, second = json.loads(again.stdout)
    assert first["models"][0] == "a"
    assert second["model"] == "bad.onnx"
    assert "not a readable ONNX file" in second["error"]


def test_what_would_get_the_same_name_is_refused_before_anything_is_written(tmp_path):
    for folder in ("one", "two"):
        linear_file(tmp_path / folder / "a.onnx")
    before = contents(tmp_path)
    for options, said in (
        (("--force",), "one/a.onnx and two/a.onnx: would both be called a"),
        (("--name", "b"), "--name: is one model's"),
        (("--scores", "odds"), "--scores: expected logits or probabilities"),
    ):
        done = call_command(
            *("protect", "one/a.onnx", "two/a.onnx", "--repository", "models", *options),
            cwd=tmp_path,
        )
        assert done.returncode == 1
        assert said in done.stderr
        assert contents(tmp_path) == before


def test_a_repository_is_protected_listed_retuned_and_given_back(tmp_path, monkeypatch):
    models = tmp_path / "models"
    for name in ("first", "second"):
        elsewhere(models, "fil", name)
        config = models / name / "config.pbtxt"
        config.write_text(config.read_text().replace('"m"', f'"{name}"'))
    pipeline(models, backend="fil")
    elsewhere(models, "tensorrt", "broken")  # whose name is another
    before = contents(models)
    protect(models / "second", "fil")

    done = call_command("protect", "models", *TOLD, cwd=tmp_path)
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("reverse-sigmoid: ")]
    assert "broken/config.pbtxt: name: expected the folder's, broken, got m" in said
    rows = {line.split()[1]: line for line in done.stdout.splitlines() if "models/" in line}
    assert list(rows) == [f"models/{one}" for one in ("first", "pipe", "second", "broken")]
    assert "protected already" in rows["models/second"]
    expected = [*behind("first", "second"), "broken", "inner", "pipe", "pipe_reverse_sigmoid"]
    assert names(models) == sorted([*expected, "scaling"])
    found = listing.look(models)
    assert [one.name for one in found.protected] == ["first", "pipe", "second"]
    assert [one.name for one in found.unprotected] == ["broken"]

    defences = [models / f"{one}_reverse_sigmoid" for one in ("first", "pipe", "second")]
    done = call_command("retune", "models", "--beta", "0.7", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [one["file"] for one in json.loads(done.stdout)] == [
        f"models/{one.name}/config.pbtxt" for one in defences
    ]
    defences[0].joinpath("config.pbtxt").write_text("what?")
    done = call_command("retune", "models", "--beta", "0.8", cwd=tmp_path)
    assert done.returncode == 1
    assert "first" in done.stderr
    betas = [parsed(one / "config.pbtxt").parameters["beta"].string_value for one in defences[1:]]
    assert betas == ["0.8", "0.8"]

    done, failed = undoing.undo_each(found.undoable, poll_s=0)
    assert (len(done), failed) == (3, {})
    assert contents(models) == before


def test_a_half_way_attempt_leaves_no_model_that_would_be_protected_by_itself(tmp_path):
    models = tmp_path / "models"
    protect(elsewhere(models, "fil"), "fil")
    for file in (models / "m_classifier").glob("**/xgboost.json"):
        (models / "m" / "1").joinpath(file.name).hardlink_to(file)
    original = models / "m_reverse_sigmoid" / ".reverse_sigmoid" / "config.pbtxt"
    (models / "m" / "config.pbtxt").write_bytes(original.read_bytes())
    found = listing.look(models)
    assert ([one.name for one in found.unprotected], found.protected) == (["m"], [])
    assert found.undoable == [models / "m"]


def test_a_repository_without_what_is_asked_for_says_so(tmp_path):
    elsewhere(tmp_path / "models", "fil")
    for words, said in (
        (("protect", "models", "--undo"), "models: nothing to undo"),
        (("retune", "models", "--beta", "1"), "models: no protected model there"),
        (("protect", "."), "config.pbtxt"),
    ):
        done = call_command(*words, cwd=tmp_path)
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_one_model_is_checked_with_all_that_it_runs(tmp_path):
    models = tmp_path / "models"
    for name in ("a", "b"):
        protect_file(linear_file(tmp_path / f"{name}.onnx"), models, SHIPPED, ProtectOptions())
    config = models / "b_reverse_sigmoid" / "config.pbtxt"
    config.write_text(
        config.read_text().replace(
            '"beta" value: { string_value: "1.5', '"beta" value: { string_value: "-1'
        )
    )
    for name, errors in (("a", 0), ("b", 1)):
        done = call_command("check", f"models/{name}", "--json", cwd=tmp_path)
        found = json.loads(done.stdout)
        assert done.returncode == bool(errors)
        assert sum(one["level"] == "error" for one in found["findings"]) == errors
        assert found["models"] == 3
        assert {one["model"] for one in found["findings"]} <= set(behind(name))


def test_force_never_replaces_a_model_that_another_runs(tmp_path):
    weights = {key: rng().normal(size=(6, 4)).astype("float32") for key in "WV"}
    heads = graph_file(
        tmp_path / "face.onnx",
        [node("MatMul", ["x", "W"], ["age"]), node("MatMul", ["x", "V"], ["sex"])],
        [("x", FLOAT, ("N", 6))],
        [("age", FLOAT, ("N", 4)), ("sex", FLOAT, ("N", 4))],
        weights,
    )
    one = linear_file(tmp_path / "face_age.onnx")
    both = ProtectOptions(output=("age", "sex"), force=True)
    alone = ProtectOptions(force=True)
    for first, second, said in (
        ((heads, both), (one, alone), "face runs it"),
        ((one, alone), (heads, both), "face_age runs it"),
    ):
        models = tmp_path / said.partition(" ")[0]
        protect_file(first[0], models, SHIPPED, first[1])
        before = contents(models)
        with pytest.raises(InputError, match=said):
            protect_file(second[0], models, SHIPPED, second[1])
        assert contents(models) == before
        protect_file(first[0], models, SHIPPED, first[1])
    with pytest.raises(InputError, match="face runs it"):
        protect_file(
            one, tmp_path / "face", SHIPPED, ProtectOptions(name="face_classifier", force=True)
        )
