"""A version folder put beside a good one: check finds what it does to the defence."""

import dataclasses
import signal

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

from deploy.repository import model_config, version_check, victim_graph
from deploy.repository.check import check
from deploy.supervision.versions import Versions, version_files
from exporters.fusing import fused
from exporters.graph.onnx_signature import OnnxTensor, Signature
from exporters.repository import model_repository
from exporters.repository.model_repository import SHIPPED
from postprocess.errors import InputError
from postprocess.parameters import Parameters

NAME, VICTIM, DEFENCE = "m", "m_classifier", "m_reverse_sigmoid"
ENDINGS = {
    "logits": [("Identity", ["l"], {})],
    "softmax": [("Softmax", ["l"], {"axis": -1})],
    "sigmoid": [("Sigmoid", ["l"], {})],
    "quantised": [
        ("Softmax", ["l"], {"axis": -1}),
        ("QuantizeLinear", ["p0", "scale", "zero"], {}),
        ("DequantizeLinear", ["p1", "scale", "zero"], {}),
    ],
    "averaged": [
        ("Softmax", ["l"], {"axis": -1}),
        ("Add", ["p0", "p0"], {}),
        ("Mul", ["p1", "half"], {}),
    ],
}


def graph(ending="logits", classes=6, kind=T.FLOAT, output="scores", features=8):
    rng = np.random.default_rng(classes)
    types = {T.FLOAT: np.float32, T.FLOAT16: np.float16}
    initial = [
        nh.from_array((rng.normal(size=(features, classes)) * 2).astype(types[kind]), "w"),
        nh.from_array(np.array(1 / 255, np.float32), "scale"),
        nh.from_array(np.array(0, np.uint8), "zero"),
        nh.from_array(np.array(0.5, types[kind]), "half"),
    ]
    nodes, steps = [h.make_node("MatMul", ["x", "w"], ["l"])], ENDINGS[ending]
    for index, (op, inputs, attributes) in enumerate(steps):
        made = output if index == len(steps) - 1 else f"p{index}"
        nodes.append(h.make_node(op, inputs, [made], **attributes))
    used = {name for node in nodes for name in node.input}
    made = h.make_graph(
        nodes,
        "g",
        [h.make_tensor_value_info("x", kind, ["N", features])],
        [h.make_tensor_value_info(output, kind, ["N", classes])],
        [one for one in initial if one.name in used],
    )
    return h.make_model(made, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


SIGNATURE = Signature(
    (OnnxTensor("x", "TYPE_FP32", (8,)),), (OnnxTensor("scores", "TYPE_FP32", (6,)),)
)


def write(repository, files, first, model):
    for path, text in files.items():
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_text(text)
    put(repository, model, 1, first)
    return repository


def put(repository, model, version, graph):
    folder = repository / model / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(graph, folder / "model.onnx")


def served(tmp_path, scores="logits", first="logits", **changes):
    parameters = dataclasses.replace(SHIPPED, scores=scores, **changes)
    files = model_repository.files(NAME, SIGNATURE, parameters)
    return write(tmp_path / "models", files, graph(first), VICTIM)


def looked_at(repository):
    return version_check.look(repository, model_config.read_all(repository))


def found(repository):
    said = looked_at(repository)
    # Both ways to ask say the same.
    assert [one for one in check(repository).findings if one.code.startswith("version")] == said
    return [(one.level, one.code) for one in said], "\n".join(one.message for one in said)


@pytest.mark.parametrize(
    ("scores", "first"),
    [
        ("logits", "logits"),
        ("probabilities", "softmax"),
        ("probabilities", "quantised"),
        ("probabilities", "averaged"),
    ],
)
def test_versions_that_give_what_the_defence_expects_are_no_finding(tmp_path, scores, first):
    repository = served(tmp_path, scores, first)
    put(repository, VICTIM, 2, graph(first))
    assert found(repository) == ([], "")


@pytest.mark.parametrize("backend", ['backend: "onnxruntime"', 'platform: "onnxruntime_onnx"'])
@pytest.mark.parametrize("ending", ["softmax", "sigmoid", "quantised", "averaged"])
def test_a_version_of_probabilities_under_a_defence_of_logits_is_an_error(
    tmp_path, ending, backend
):
    repository = served(tmp_path)
    config = repository / VICTIM / "config.pbtxt"
    config.write_text(config.read_text().replace('backend: "onnxruntime"', backend))
    assert backend in config.read_text()
    put(repository, VICTIM, 2, graph(ending, classes=6))
    levels, said = found(repository)
    assert levels == [("error", "version-probabilities")]
    assert f"{VICTIM}/2/model.onnx: output scores " in said
    assert f"{DEFENCE} expects logits; serve it as" in said


def test_a_version_of_logits_under_a_defence_of_probabilities_is_an_error(tmp_path):
    repository = served(tmp_path, "probabilities", "softmax")
    put(repository, VICTIM, 2, graph("logits"))
    assert found(repository)[0] == [("error", "version-logits")]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"classes": 7}, "output scores: config.pbtxt says dims [6], got [7]"),
        ({"output": "other"}, "output scores: config.pbtxt has it, got other"),
        ({"kind": T.FLOAT16}, "input x: config.pbtxt says TYPE_FP32, got FLOAT16"),
        ({"features": 9}, "input x: config.pbtxt says dims [8], got [9]"),
    ],
)
def test_a_version_of_other_tensors_is_an_error(tmp_path, changed, said):
    repository = served(tmp_path)
    put(repository, VICTIM, 2, graph(**changed))
    levels, messages = found(repository)
    assert set(levels) == {("error", "version-tensors")}
    assert said in messages


def test_a_version_that_is_no_graph_is_an_error(tmp_path):
    repository = served(tmp_path)
    put(repository, VICTIM, 2, graph())
    (repository / VICTIM / "2" / "model.onnx").write_text("no graph")
    assert found(repository)[0] == [("error", "version-unreadable")]


@pytest.mark.parametrize(
    ("policy", "levels"),
    [
        ("", ["warning"]),
        ("version_policy: { latest { num_versions: 2 } }", ["error"]),
        ("version_policy: { all { } }", ["error"]),
        ("version_policy: { specific { versions: [ 1 ] } }", ["error"]),
        ("version_policy: { specific { versions: [ 2 ] } }", ["warning"]),
    ],
)
def test_a_version_that_is_not_served_now_is_a_warning(tmp_path, policy, levels):
    repository = served(tmp_path, first="softmax")
    put(repository, VICTIM, 2, graph())
    with (repository / VICTIM / "config.pbtxt").open("a") as config:
        config.write(policy + "\n")
    assert [level for level, _ in found(repository)[0]] == levels


def test_a_version_that_the_ensemble_does_not_name_is_a_warning(tmp_path):
    repository = served(tmp_path)
    put(repository, VICTIM, 2, graph("softmax"))
    config = repository / NAME / "config.pbtxt"
    config.write_text(config.read_text().replace("model_version: -1", "model_version: 1", 1))
    assert found(repository)[0] == [("warning", "version-probabilities")]


def test_what_cannot_be_looked_into_is_named(tmp_path):
    repository = served(tmp_path)
    config = repository / VICTIM / "config.pbtxt"
    config.write_text(config.read_text().replace('backend: "onnxruntime"', 'backend: "tensorrt"'))
    levels, said = found(repository)
    assert levels == [("warning", "version-not-looked-into")]
    assert "tensorrt: its versions cannot be looked into" in said


def test_a_version_of_a_defence_with_other_code_is_an_error(tmp_path):
    repository = served(tmp_path)
    other = repository / DEFENCE / "2"
    other.mkdir()
    (other / "model.py").write_text("class TritonPythonModel: ...\n")
    errors = check(repository).errors
    assert [one.code for one in errors] == ["no-defence"]
    assert f"{DEFENCE}/2/model.py" in errors[0].message


def fused_repository(tmp_path, inside="logits"):
    parameters = Parameters(scores="logits", beta=1.5, gamma=0.2)
    model = graph(inside)
    fused.fuse(model, "scores", parameters)
    files = model_repository.fused_files(NAME, SIGNATURE, parameters)
    return write(tmp_path / "models", files, model, NAME)


def test_a_fused_version_without_its_defence_is_an_error(tmp_path):
    repository = fused_repository(tmp_path)
    assert looked_at(repository) == []
    put(repository, NAME, 2, graph("softmax"))
    (said,) = looked_at(repository)
    assert (said.level, said.code) == ("error", "version-no-defence")
    assert [one.code for one in check(repository).errors] == ["fused"]


def test_a_fused_version_whose_classifier_gives_probabilities_is_an_error(tmp_path):
    repository = fused_repository(tmp_path, inside="softmax")
    assert found(repository)[0] == [("error", "version-probabilities")]


def test_classes_on_another_axis_are_looked_at_there(tmp_path):
    signature = Signature(
        (OnnxTensor("x", "TYPE_FP32", (3, 4, 5)),), (OnnxTensor("scores", "TYPE_FP32", (3, 4, 5)),)
    )
    for axis, end in ((1, "Softmax"), (1, "Identity")):
        attributes = {"axis": axis} if end == "Softmax" else {}
        made = h.make_graph(
            [h.make_node(end, ["x"], ["scores"], **attributes)],
            "g",
            [h.make_tensor_value_info("x", T.FLOAT, ["N", 3, 4, 5])],
            [h.make_tensor_value_info("scores", T.FLOAT, ["N", 3, 4, 5])],
        )
        model = h.make_model(made, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
        wanted = "probabilities" if end == "Softmax" else "logits"
        parameters = dataclasses.replace(SHIPPED, scores=wanted, class_axis=1)
        files = model_repository.files(NAME, signature, parameters)
        defence = f"{DEFENCE}/config.pbtxt"
        if "class_axis" not in files[defence]:
            files[defence] += 'parameters { key: "class_axis" value: { string_value: "1" } }\n'
        repository = write(tmp_path / end, files, model, VICTIM)
        assert found(repository) == ([], "")
        with pytest.raises(InputError, match="parameter class_axis: expected the last axis"):
            victim_graph.find(repository, NAME)
        text = (repository / DEFENCE / "config.pbtxt").read_text()
        other = "logits" if wanted == "probabilities" else "probabilities"
        (repository / DEFENCE / "config.pbtxt").write_text(
            text.replace(f'"{wanted}"', f'"{other}"')
        )
        assert [level for level, _ in found(repository)[0]] == ["error"]


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """Return a repository, and what finds out what is wrong with it; its file names are short."""
    repository = served(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("deploy.supervision.versions.LOOK_EVERY_S", 0)
    made = Versions(repository.relative_to(tmp_path))
    yield repository, made
    made.close()


def looked_into(versions):
    """Return the models that are looked into now, and what is said once they were."""
    assert versions.news() == []
    names = versions._changed
    versions.wait()
    return names, versions.news()


def test_news_come_once_of_models_whose_files_have_changed(watched):
    repository, versions = watched
    versions.wait()
    assert versions.news() == []
    put(repository, VICTIM, 2, graph("softmax"))
    names, (said,) = looked_into(versions)
    assert names == [VICTIM]
    assert said.startswith(f"{repository.name}/{VICTIM}/2/model.onnx: output scores ends in Softm")
    assert looked_into(versions) == ([], [])
    put(repository, VICTIM, 3, graph("logits"))
    assert looked_into(versions) == ([VICTIM], [])


def test_a_look_that_takes_too_long_ends_and_says_so(watched, monkeypatch):
    _, versions = watched
    monkeypatch.setattr("deploy.supervision.versions.LOOK_S", -1)
    process = versions._process
    process.send_signal(signal.SIGSTOP)
    assert all("could not be looked into" in line for line in versions.news())
    assert process.returncode == -signal.SIGKILL


def test_the_stamp_changes_when_a_version_comes_changes_or_goes(tmp_path):
    repository = served(tmp_path)
    stamps = [version_files(repository)]
    assert version_files(repository) == stamps[0]
    put(repository, VICTIM, 2, graph("softmax"))
    stamps.append(version_files(repository))
    put(repository, VICTIM, 2, graph("quantised"))
    stamps.append(version_files(repository))
    assert stamps[2] != stamps[0] != stamps[1] != stamps[2]
