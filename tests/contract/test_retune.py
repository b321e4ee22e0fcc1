"""``retune`` and ``check`` on both layouts, as files."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from commands import call_command
from existing_models import parsed
from victims import graph_file, linear_file

from deploy.benchmarks import threads
from exporters.fusing import fused
from exporters.graph import onnx_graph
from exporters.protect import protect
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

ROOT = Path(__file__).parents[2]
SOFTMAX = ("Softmax", {"axis": -1})
X = np.random.default_rng(2).normal(size=(64, 6)).astype(np.float32)


@pytest.fixture
def ensemble(tmp_path):
    repository = Path(shutil.copytree(ROOT / "model_repository", tmp_path / "repository"))
    (repository / "digits_classifier" / "1" / "model.onnx").touch()
    return repository / "digits"


@pytest.fixture
def one_model(tmp_path):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX)
    protect(path, tmp_path / "repository", SHIPPED, ProtectOptions(layout="fused"))
    return tmp_path / "repository" / "m"


def command(*arguments, cwd):
    done = call_command(*arguments, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def config_of(ensemble):
    return ensemble.parent / "digits_reverse_sigmoid" / "config.pbtxt"


def session(model):
    path = model / "1" / "model.onnx"
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def logits(model):
    """What the victim inside says, by the weights that the test file was made with."""
    weights = onnx.load(model / "1" / "model.onnx").graph.initializer
    (matrix,) = [onnx.numpy_helper.to_array(one) for one in weights if one.name == "W"]
    return X @ matrix


def test_a_fused_repository_holds_one_model_and_no_raw_output(one_model):
    assert [path.name for path in one_model.parent.iterdir()] == ["m"]
    (output,) = session(one_model).get_outputs()
    assert output.name == "scores"
    (answer,) = session(one_model).run(None, {"x": X})
    assert np.abs(answer - Postprocessor(SHIPPED)(logits(one_model))).max() <= 1e-6


def test_check_reads_the_parameters_of_a_fused_model_out_of_its_graph(one_model):
    code, out, _ = command("check", one_model.parent, "--json", cwd=one_model.parent)
    said = json.loads(out)
    assert (code, said["models"], said["findings"]) == (0, 1, [])
    assert (said["defences"]["m"]["beta"], said["defences"]["m"]["gamma"]) == (1.5, 0.2)


def weaken(model):
    (beta,) = [one for one in model.graph.initializer if one.name == "reverse_sigmoid/half_beta"]
    beta.raw_data = np.array(5e-4).tobytes()


def take_out(model):
    model.CopyFrom(onnx.load(graph_file(Path(model.doc_string), *RAW)))


ALTERED = (
    "the defence in the graph is not the one that its parameters make: it was changed by hand, or "
    "made by another build; reverse-sigmoid retune makes it anew, also with a parameter as it is"
)
RAW = (
    [onnx.helper.make_node("Identity", ["x"], ["scores"])],
    [("x", 1, ["N", 4])],
    [("scores", 1, ["N", 4])],
)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (weaken, "fused", ALTERED),
        (take_out, "fused", "expected a fused defence, the graph holds none"),
    ],
)
def test_check_finds_a_graph_that_does_not_defend_as_it_says(one_model, change, code, said):
    path = one_model / "1" / "model.onnx"
    model = onnx.load(path)
    model.doc_string = str(one_model.parent.parent / "raw.onnx")
    change(model)
    onnx.save(model, path)
    exit_code, out, _ = command("check", one_model.parent, "--json", cwd=one_model.parent)
    (finding,) = json.loads(out)["findings"]
    assert exit_code == 1
    assert (finding["level"], finding["code"], finding["model"]) == ("error", code, "m")
    assert finding["message"] == f"{path}: {said}"


def test_check_finds_a_raw_output_beside_the_fused_one(one_model):
    config = one_model / "config.pbtxt"
    output = '{ name: "raw" data_type: TYPE_FP32 dims: [ 4 ] }'
    config.write_text(config.read_text() + f"output [ {output} ]\n")
    code, out, _ = command("check", one_model.parent, cwd=one_model.parent)
    assert code == 1
    assert f"error   raw-output: {config}: output raw: expected what a defence makes" in out


def test_check_finds_a_mark_that_names_another_output(one_model):
    config = one_model / "config.pbtxt"
    text = config.read_text()
    config.write_text(text.replace('string_value: "scores"', 'string_value: "other"'))
    code, out, _ = command("check", one_model.parent, cwd=one_model.parent)
    assert code == 1
    assert f"{config}: parameter reverse_sigmoid_fused: expected the name of an output" in out


def test_a_fused_model_is_retuned_in_its_graph(one_model):
    path = one_model / "1" / "model.onnx"
    options = ("--beta", 0.9, "--gamma", "0.1", "--margin", 0, "--decimals", 3)
    code, out, err = command("retune", one_model, *options, cwd=one_model)
    assert (code, err) == (0, "")
    assert out == (
        f"{path}: beta 1.5 -> 0.9, gamma 0.2 -> 0.1, margin 0.01 -> 0.0, decimals None -> 3\n"
    )
    other = Parameters(scores="logits", beta=0.9, gamma=0.1, decimals=3)
    assert fused.read_parameters(onnx_graph.load(path), where="") == other
    (answer,) = session(one_model).run(None, {"x": X})
    assert np.abs(answer - Postprocessor(other)(logits(one_model))).max() <= 1.01e-3

    code, out, _ = command("retune", one_model, "--decimals", "none", "--json", cwd=one_model)
    (said,) = json.loads(out)
    assert said == {"file": str(path), "written": True, "changes": {"decimals": [3, None]}}
    (answer,) = session(one_model).run(None, {"x": X})
    other = Parameters(scores="logits", beta=0.9, gamma=0.1)
    assert np.abs(answer - Postprocessor(other)(logits(one_model))).max() <= 1e-6


def test_an_ensemble_is_retuned_in_the_config_of_its_defence_and_keeps_its_comments(ensemble):
    config = config_of(ensemble)
    before = config.read_text()
    code, out, err = command("retune", ensemble, "--beta", "0.9", cwd=ensemble)
    assert (code, err) == (0, "")
    old = 'parameters { key: "beta" value: { string_value: "1.5" } }'
    assert before.count(old) == 1
    assert config.read_text() == before.replace(old, old.replace("1.5", "0.9"))
    assert f"-{old}\n+{old.replace('1.5', '0.9')}\n" in out
    assert out.endswith(f"{config}: beta 1.5 -> 0.9\n")

    command("retune", config.parent, "--decimals", "2", cwd=ensemble)  # by the defence's own name
    assert 'key: "decimals" value: { string_value: "2" }' in config.read_text()
    command("retune", ensemble, "--decimals", "none", "--beta", "1.5", cwd=ensemble)
    assert config.read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "parameters: {\n  key: 'beta'\n  value: {\n    string_value: 'OLD'\n  }\n}\n",
        'parameters{key:"beta",value{string_value:"OLD"}}\n',
        '# parameters { key: "beta" value: { string_value: "7" } }\n'
        'parameters { key: "beta" value: { string_value: "OLD" } } # "7"\n',
    ],
)
def test_an_operators_own_way_of_writing_is_kept(ensemble, text):
    config = config_of(ensemble)
    shipped = 'parameters { key: "beta" value: { string_value: "1.5" } }\n'
    config.write_text(config.read_text().replace(shipped, text.replace("OLD", "1.5")))
    before = config.read_text()
    code, _, err = command("retune", ensemble, "--beta", "0.9", cwd=ensemble)
    assert (code, err) == (0, "")
    after = config.read_text()
    assert len(after) == len(before)
    assert [(a, b) for a, b in zip(before, after, strict=True) if a not in "15'" and a != b] == []
    assert "0.9" in after
    assert "OLD" not in after


def test_a_linked_config_with_ends_of_lines_and_permissions_of_its_own_keeps_them(ensemble):
    config, managed = config_of(ensemble), ensemble.parents[1] / "managed.pbtxt"
    managed.write_bytes(config.read_bytes().replace(b"\n", b"\r\n"))
    managed.chmod(0o600)
    config.unlink()
    config.symlink_to(managed)
    before = managed.read_bytes()
    code, _, err = command("retune", ensemble, "--beta", "1.2", cwd=ensemble)
    assert (code, err) == (0, "")
    assert config.is_symlink()
    assert managed.stat().st_mode & 0o777 == 0o600
    assert managed.read_bytes() == before.replace(b'"1.5"', b'"1.2"')
    assert before != managed.read_bytes()


def test_a_way_of_writing_that_cannot_be_edited_is_refused(ensemble):
    config = config_of(ensemble)
    shipped = 'parameters { key: "beta" value: { string_value: "1.5" } }\n'
    listed = 'parameters [ { key: "beta" value: { string_value: "1.5" } } ]\n'
    config.write_text(config.read_text().replace(shipped, listed))
    before = config.read_text()
    code, _, err = command("retune", ensemble, "--beta", "0.9", cwd=ensemble)
    assert code == 1
    assert f"{config}: its parameters are written in a form that cannot be edited in place" in err
    assert config.read_text() == before


@pytest.mark.slow
def test_dry_run_writes_nothing(ensemble, one_model):
    for model, file in (
        (ensemble, config_of(ensemble)),
        (one_model, one_model / "1" / "model.onnx"),
    ):
        before = file.read_bytes()
        code, out, err = command("retune", model, "--beta", "0.9", "--dry-run", cwd=model)
        assert (code, err) == (0, "nothing was written\n")
        assert f"{file}: beta 1.5 -> 0.9" in out
        assert file.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("digits", (), "expected at least one of --beta, --gamma, --margin, --decimals"),
        ("digits", ("--beta", "0"), "parameter beta: expected a number from 0.001 to 100, got 0"),
        ("digits", ("--gamma", "x"), "parameter gamma: expected a number from 0.001 to 100"),
        ("digits", ("--decimals", "7"), "parameter decimals: expected an integer from 1 to 6"),
        ("m", ("--beta", "-1"), "parameter beta: expected a number from 0.001 to 100, got -1"),
        ("digits_classifier", ("--beta", "1"), "expected a defence, a fused model or an ensemble"),
        ("nothing", ("--beta", "1"), "nothing: no such model; "),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    ensemble, one_model, model, options, said
):
    folder = ensemble.parent
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, out, err = command("retune", folder / model, *options, cwd=folder)
    assert (code, out) == (1, "")
    assert said in err
    assert files == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_defence_that_is_refused_is_named_through_its_ensemble(ensemble):
    path = ensemble.parent / "digits_reverse_sigmoid" / "config.pbtxt"
    text = path.read_text()
    path.write_text(text.replace('key: "beta" value: { string_value: "1.5" }',
                                 'key: "beta" value: { string_value: "-1" }'))  # fmt: skip
    assert path.read_text() != text
    code, out, err = command("retune", ensemble, "--gamma", "0.1", cwd=ensemble.parent)
    assert (code, out) == (1, "")
    assert f"{path}: parameter beta: expected a number from 0.001 to 100, got -1" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"self_contained": True}, "--self-contained: a fused model needs no package beside it"),
        ({"max_client_batch": 1}, "--max-client-batch: in a fused model max_batch_size limits"),
    ],
)
def test_options_of_the_other_layout_are_refused(tmp_path, asked, said):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX)
    with pytest.raises(InputError, match=said):
        protect(path, tmp_path / "repository", SHIPPED, ProtectOptions(layout="fused", **asked))
    assert not (tmp_path / "repository").exists()


def test_a_fused_model_beside_its_own_raw_classifier_is_refused(tmp_path):
    path, repository = linear_file(tmp_path / "m.onnx", SOFTMAX), tmp_path / "repository"
    protect(path, repository, SHIPPED, ProtectOptions())
    with pytest.raises(InputError, match="m_classifier exists, of the ensemble layout: remove it"):
        protect(path, repository, SHIPPED, ProtectOptions(layout="fused", force=True))


def test_a_bad_value_in_the_file_is_mended(ensemble):
    path = config_of(ensemble)
    path.write_text(path.read_text().replace('string_value: "1.5"', 'string_value: "1,5"'))
    code, out, err = command("retune", ensemble, "--gamma", "0.3", cwd=ensemble)
    assert (code, out) == (1, "")
    assert f"{path}: parameter beta: " in err
    code, out, err = command("retune", ensemble, "--beta", "1.2", cwd=ensemble)
    assert code == 0, err
    assert out.endswith(f"{path}: beta 1,5 -> 1.2\n")
    assert 'key: "beta" value: { string_value: "1.2" }' in path.read_text()


def test_protect_with_force_says_which_parameters_it_replaced(one_model):
    assert command("retune", one_model, "--beta", "0.9", cwd=one_model)[0] == 0
    onnx_file, repository = one_model.parent.parent / "m.onnx", one_model.parent
    words = ("protect", onnx_file, "--repository", repository, "--layout", "fused", "--force")
    code, _, err = command(*words, cwd=repository)
    assert code == 0, err
    assert "--force replaced its parameters: beta 0.9 -> 1.5; retune" in err


def test_protect_with_force_keeps_the_threads_that_were_chosen_and_says_so(tmp_path):
    words = ("protect", linear_file(tmp_path / "m.onnx"), "--repository", tmp_path / "models")
    assert command(*words, cwd=tmp_path)[0] == 0
    path = tmp_path / "models" / "m_classifier" / "config.pbtxt"
    threads.Choice("instance a core", "it was measured").write(path)
    chosen = parsed(path)
    for _ in range(2):
        code, _, err = command(*words, "--force", cwd=tmp_path)
        assert code == 0, err
        assert f"{path}: --force kept what it says of threads: " in err
        assert 'key: "intra_op_thread_count" value: { string_value: "1" }' in err
        assert parsed(path) == chosen
        assert path.read_text().count("# Threads: it was measured") == 1
    path.write_text("name:")  # what cannot be read says nothing
    code, _, err = command(*words, "--force", cwd=tmp_path)
    assert code == 0, err
    assert "threads" not in err


@pytest.mark.parametrize("file", ["config.pbtxt", "1/.gitkeep"])
def test_a_file_in_place_of_a_model_is_told_with_the_model(ensemble, file):
    code, out, err = command("retune", ensemble / file, "--beta", "1.2", cwd=ensemble)
    assert (code, out) == (1, "")
    assert f"{ensemble / file}: expected a model's folder REPOSITORY/NAME, got a file; " in err
    assert err.endswith(f"give {ensemble}\n")


def test_a_model_that_is_not_there_is_told_with_those_that_are(ensemble):
    repository, cwd = ensemble.parent, ensemble
    for words in (
        ("retune", repository / "digit", "--beta", "1.2"),
        ("calibrate", repository / "digit", "--undo"),
        ("check", repository / "digit"),
        ("benchmark", "--repository", repository, "--model", "digit", "--choose-threads"),
    ):
        code, out, err = command(*words, cwd=cwd)
        assert (code, out) == (1, "")
        assert f"{repository / 'digit'}: no such model; {repository} holds digits, " in err
