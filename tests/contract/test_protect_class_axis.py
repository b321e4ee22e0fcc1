"""Which axis of the scores ``protect`` takes for the classes: the clear one, or the one said."""

import numpy as np
import onnxruntime
import pytest
from odd_victims import HALF, HEIGHT, WIDTH, K, segmentation_file
from victims import FLOAT, INT64, graph_file, node, protected

from exporters.fusing.fused import read_parameters
from exporters.graph.onnx_graph import load
from exporters.repository import model_repository
from exporters.repository.config_pbtxt import read_parameters as read_config
from exporters.verify import defended
from postprocess.errors import InputError
from postprocess.postprocessor import Postprocessor

pytestmark = pytest.mark.slow

SOFTMAX = node("Softmax", ["logits"], ["scores"], axis=1)
BEHIND = (
    node("Softmax", ["logits"], ["soft"], axis=1),
    node("Clip", ["soft"], ["scores"]),
)
FIXED = "axis 1 of size 5, axis 2 of size 3 or axis 3 of size 7"
FREE = "axis 1 of size 5, axis 2 of any size or axis 3 of any size"


@pytest.mark.parametrize(
    ("ending", "sizes", "readings", "sign"),
    [
        ((), (HEIGHT, WIDTH), FIXED, ""),
        ((), ("H", "W"), FREE, ""),
        ((SOFTMAX,), (HEIGHT, WIDTH), FIXED, "; the graph's Softmax is over axis 1 of size 5"),
        ((SOFTMAX,), ("H", "W"), FREE, "; the graph's Softmax is over axis 1 of size 5"),
    ],
)
def test_an_axis_that_is_not_the_last_is_never_guessed(tmp_path, ending, sizes, readings, sign):
    path = segmentation_file(tmp_path / "m.onnx", *ending, sizes=sizes)
    with pytest.raises(InputError) as raised:
        protected(tmp_path, path)
    assert str(raised.value) == (
        f"{path}: output scores: which axis holds the classes is not clear: {readings}{sign}; "
        "say it, for example --class-axis 1"
    )
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
@pytest.mark.parametrize("asked", [1, -3])
@pytest.mark.parametrize("sizes", [(HEIGHT, WIDTH), ("H", "W")])
@pytest.mark.parametrize("ending", [(), (SOFTMAX,), BEHIND])
def test_every_pixel_keeps_its_class_along_the_axis_that_is_said(
    tmp_path, ending, sizes, asked, layout
):
    path = segmentation_file(tmp_path / "m.onnx", *ending, sizes=sizes)
    done = protected(tmp_path, path, class_axis=asked, layout=layout)
    assert (done.heads[0].class_axis, done.heads[0].classes) == (1, K)
    images = np.random.default_rng(1).normal(size=(4, 2, HEIGHT, WIDTH)).astype(np.float32)
    (original,) = run(path, images)
    if layout == "fused":
        file = model_repository.fused_onnx_path(done.repository, "m")
        assert read_parameters(load(file), where="").class_axis == 1
        (answer,) = run(file, images)
    else:
        config = done.repository / "m_reverse_sigmoid" / "config.pbtxt"
        assert read_config(config).class_axis == 1
        (scores,) = run(model_repository.onnx_path(done.repository, "m"), images)
        answer = defended(scores, Postprocessor(read_config(config)), flat=False)
    assert answer.shape == original.shape
    assert np.array_equal(answer.argmax(axis=1), original.argmax(axis=1))
    assert np.allclose(answer.sum(axis=1), 1, atol=1e-5)
    softmax = np.exp(original) / np.exp(original).sum(axis=1, keepdims=True)
    assert np.abs(answer - softmax).max() > 0.05


def run(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": images})


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (3, "--class-axis 3: the graph's Softmax is over axis 1 of size 5; give --class-axis 1"),
        (-1, "--class-axis -1: the graph's Softmax is over axis 1 of size 5; give --class-axis 1"),
        (0, "--class-axis 0: axis 0 is the batch; expected one of 1, 2, 3"),
        (4, "--class-axis 4: the scores have 4 axes, -4 to 3"),
        (-5, "--class-axis -5: the scores have 4 axes, -4 to 3"),
    ],
)
def test_an_axis_that_cannot_be_is_refused(tmp_path, asked, said):
    path = segmentation_file(tmp_path / "m.onnx", SOFTMAX)
    with pytest.raises(InputError) as raised:
        protected(tmp_path, path, class_axis=asked)
    assert str(raised.value) == f"{path}: output scores: {said}"


def test_what_was_seen_to_sum_to_1_tells_the_axis_where_the_graph_does_not(tmp_path):
    total = node("ReduceSum", ["e", "one"], ["total"], keepdims=1)
    share = (node("Reciprocal", ["total"], ["part"]), node("Mul", ["e", "part"], ["scores"]))
    ending = (node("Exp", ["logits"], ["e"]), total, *share)  # no Softmax that is known
    path = segmentation_file(tmp_path / "m.onnx", *ending)
    add_axis(path)
    with pytest.raises(InputError, match="the scores sum to 1 along axis 1 of size 5"):
        protected(tmp_path, path)
    with pytest.raises(InputError, match="the scores sum to 1 along axis 1 of size 5; give"):
        protected(tmp_path, path, class_axis=2)
    done = protected(tmp_path, path, class_axis=1)
    assert done.heads[0].scores.kind == "probabilities"


def add_axis(path):
    import onnx

    model = onnx.load(str(path))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "one"))
    onnx.save(model, str(path))


def test_a_graph_that_takes_the_highest_along_an_axis_tells_it(tmp_path):
    label = node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0)
    path = segmentation_file(tmp_path / "m.onnx", label, node("Neg", ["logits"], ["scores"]))
    with pytest.raises(InputError, match="not clear"):  # of other scores than those it gives
        protected(tmp_path, path)
    same = node("Identity", ["logits"], ["scores"])
    label = node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0)
    with pytest.raises(InputError, match="the graph's ArgMax is over axis 1 of size 5"):
        protected(tmp_path, segmentation_file(path, same, label))


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_label_of_every_pixel_follows_from_the_class_along_the_axis(tmp_path, keepdims):
    path = graph_file(
        tmp_path / "m.onnx",
        [SOFTMAX, node("ArgMax", ["scores"], ["label"], axis=1, keepdims=keepdims)],
        [("logits", FLOAT, ("N", K, HEIGHT, WIDTH))],
        [
            ("scores", FLOAT, ("N", K, HEIGHT, WIDTH)),
            ("label", INT64, ("N", 1, HEIGHT, WIDTH) if keepdims else ("N", HEIGHT, WIDTH)),
        ],
    )
    done = protected(tmp_path, path, class_axis=1)
    assert [label.name for label in done.classifier.signature.labels] == ["label"]


@pytest.mark.parametrize(
    ("nodes", "shape"),
    [
        # The last axis alone has a size of its own, as in models of sequences.
        ([node("Neg", ["x"], ["scores"])], ("N", "T", 5)),
        ([node("Softmax", ["x"], ["scores"], axis=-1)], ("N", 4, 5)),
        ([node("LogSoftmax", ["x"], ["scores"], axis=2)], ("N", 4, 5)),
        ([node("Softmax", ["x"], ["s"], axis=-1), node("Clip", ["s"], ["scores"])], ("N", 4, 5)),
        ([node("Neg", ["x"], ["scores"])], ("N", 1, 5)),
        # Every score is a yes or no of its own.
        ([node("Sigmoid", ["x"], ["scores"])], ("N", 1, 4, 5)),
    ],
)
def test_the_last_axis_is_taken_where_it_is_clear(tmp_path, nodes, shape):
    path = graph_file(tmp_path / "m.onnx", nodes, [("x", FLOAT, shape)], [("scores", FLOAT, shape)])
    done = protected(tmp_path, path)
    assert (done.heads[0].class_axis, done.heads[0].classes) == (-1, 5)


def test_a_sample_of_one_length_leaves_the_last_axis_of_a_sequence_clear(tmp_path):
    shape = ("N", "T", 5)
    path = graph_file(
        tmp_path / "m.onnx",
        [node("Neg", ["x"], ["scores"])],
        [("x", FLOAT, shape)],
        [("scores", FLOAT, shape)],
    )
    sample = np.random.default_rng(0).normal(size=(8, 4, 5)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=sample)
    done = protected(tmp_path, path, sample=tmp_path / "rows.npz")
    assert done.classifier.signature.scores[0].dims == (-1, 5)


def test_a_softmax_before_a_transpose_is_followed_through_it(tmp_path):
    path = graph_file(
        tmp_path / "m.onnx",
        [
            node("Softmax", ["x"], ["soft"], axis=1),
            node("Transpose", ["soft"], ["scores"], perm=[0, 2, 3, 1]),
        ],
        [("x", FLOAT, ("N", K, HEIGHT, WIDTH))],
        [("scores", FLOAT, ("N", HEIGHT, WIDTH, K))],
    )
    done = protected(tmp_path, path)
    assert (done.heads[0].scores.cut.op, done.heads[0].classes) == ("Softmax", K)


@pytest.mark.parametrize("shape", [("N", 6, 1, 1), ("N", 6, 1)])
def test_a_last_axis_of_size_1_is_not_taken_for_one_yes_or_no(tmp_path, shape):
    """Nets that end in global pooling give [N, K, 1, 1]."""
    path = graph_file(
        tmp_path / "m.onnx",
        [node("Neg", ["x"], ["scores"])],
        [("x", FLOAT, shape)],
        [("scores", FLOAT, shape)],
    )
    with pytest.raises(InputError, match="not clear: axis 1 of size 6 or axis"):
        protected(tmp_path, path)
    assert protected(tmp_path, path, class_axis=1).heads[0].classes == 6


def test_a_softmax_over_several_axes_at_once_is_refused(tmp_path):
    """Before opset 13 a Softmax flattened all axes from its own on."""
    path = graph_file(
        tmp_path / "m.onnx",
        [node("Softmax", ["x"], ["scores"], axis=1)],
        [("x", FLOAT, ("N", K, HEIGHT))],
        [("scores", FLOAT, ("N", K, HEIGHT))],
        opset=11,
    )
    with pytest.raises(InputError, match="ends in a Softmax over several axes at once"):
        protected(tmp_path, path, class_axis=1)


def test_half_precision_and_one_image_at_a_time_keep_their_classes_too(tmp_path):
    for name, shape in (("free", ("N", K, 2, 2)), ("one", (K, 3, 2))):
        path = graph_file(
            tmp_path / f"{name}.onnx",
            [node("Softmax", ["x"], ["scores"], axis=1 if name == "free" else 0)],
            [("x", HALF, shape)],
            [("scores", HALF, shape)],
        )
        done = protected(tmp_path, path, class_axis=shape.index(K))
        assert done.heads[0].classes == K
        assert done.heads[0].class_axis == shape.index(K)
