"""Every way out that a refusal of ``protect`` names is taken, on the very file that got it."""

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from victims import FLOAT, INT64, SIGMOID, SOFTMAX, graph_file, linear_file, node, protected

from postprocess.errors import InputError

pytestmark = pytest.mark.slow

BFLOAT16 = TensorProto.BFLOAT16
SHAPE = ("N", 4)


@dataclass(frozen=True)
class Case:
    make: object  # path -> None
    said: str
    asked: dict = field(default_factory=dict)
    #: What to ask then instead, and what the file is made with then.
    then: dict = field(default_factory=dict)
    remade: object = None


def graph(*nodes, inputs=None, outputs=None, weights=None, **options):
    def make(path):
        return graph_file(
            path, nodes, inputs or [("x", FLOAT, SHAPE)], outputs or [("y", FLOAT, SHAPE)], weights,
            **options,
        )  # fmt: skip

    return make


def linear(*activation, **options):
    return lambda path: linear_file(path, *activation, **options)


HUNDRED = {"hundred": np.array(100, np.float32), "half": np.array(0.5, np.float32)}
SOFT = node("Softmax", ["x"], ["p"])
IMAGES = {"inputs": [("x", FLOAT, ("N", 3, 4, 5))], "outputs": [("y", FLOAT, ("N", 3, 4, 5))]}
BAKED = graph(
    node("Reshape", ["x", "shape"], ["h"]), node("Softmax", ["h"], ["y"]),
    weights={"shape": np.array([2, 4])},
)  # fmt: skip
TOPK = (SOFT, node("TopK", ["p", "three"], ["y", "places"]))
THREE = {"three": np.array([3])}
DEPENDENT = (
    node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
    node("Sub", ["x", "mean"], ["y"]),
)
CASES = {
    "an axis": Case(
        graph(node("Neg", ["x"], ["y"]), **IMAGES), "say it, for example --class-axis 1",
        then={"class_axis": 1},
    ),
    "another axis": Case(
        graph(node("Softmax", ["x"], ["y"], axis=1), **IMAGES), "give --class-axis 1",
        {"class_axis": 3}, {"class_axis": 1},
    ),
    "no axis": Case(
        graph(node("Neg", ["x"], ["y"]), **IMAGES), "expected one of 1, 2, 3", {"class_axis": 0},
        {"class_axis": 2},
    ),
    "a baked batch": Case(BAKED, "give --max-batch-size 0", then={"max_batch_size": 0}),
    "a batch that is asked for": Case(
        linear(SOFTMAX, batch=3), "leave it out, or give 0", {"max_batch_size": 8},
    ),
    "rows that see each other": Case(
        graph(*DEPENDENT), "give --max-batch-size 0", then={"max_batch_size": 0},
    ),
    "tokens of rows that see each other": Case(
        graph(
            *DEPENDENT, inputs=[("x", FLOAT, ("N", "T", 5))], outputs=[("y", FLOAT, ("N", "T", 5))]
        ),
        "give --max-batch-size 0", then={"max_batch_size": 0},
    ),
    "probabilities called logits": Case(
        linear(SOFTMAX, ("Clip", {})), "leave it out", {"scores": "logits"}
    ),
    "logits called probabilities": Case(
        linear(("Neg", {})), "leave it out", {"scores": "probabilities"}
    ),
    "sigmoids called one choice": Case(
        linear(SIGMOID), "give --multi-label too",
        {"scores": "probabilities", "multi_label": False},
        {"scores": "probabilities", "multi_label": True},
    ),
    "one choice called labels": Case(linear(SOFTMAX), "leave it out", {"multi_label": True}),
    "yes or no": Case(
        linear(SIGMOID, ("Sin", {}), ("Abs", {})), "give --multi-label if",
        then={"multi_label": True},
    ),
    "float16 logits that tie": Case(
        graph(
            node("MatMul", ["x", "w"], ["l"]), node("Softmax", ["l"], ["y"]),
            inputs=[("x", TensorProto.FLOAT16, ("N", 64))],
            outputs=[("y", TensorProto.FLOAT16, ("N", 1000))],
            weights={"w": np.random.default_rng(0).normal(0, 0.25, (64, 1000)).astype("f2")},
        ),
        "leave --scores out", {"scores": "logits"},
    ),
    "percent": Case(
        graph(SOFT, node("Mul", ["p", "hundred"], ["y"]), weights=HUNDRED),
        "probabilities times 100, not logits; export the model without that scaling",
        remade=graph(SOFT, node("Identity", ["p"], ["y"])),
    ),
    "halved": Case(
        graph(SOFT, node("Mul", ["p", "half"], ["y"]), weights=HUNDRED),
        "probabilities times 0.5, not logits; export the model without that scaling",
        remade=graph(SOFT, node("Identity", ["p"], ["y"])),
    ),
    "surprises": Case(
        graph(node("LogSoftmax", ["x"], ["p"]), node("Neg", ["p"], ["y"])),
        "of which the lowest is the top class; export the model without that minus",
        remade=graph(node("LogSoftmax", ["x"], ["y"])),
    ),
    "surprises by hand": Case(
        graph(SOFT, node("Log", ["p"], ["l"]), node("Neg", ["l"], ["y"])),
        "of which the lowest is the top class; export the model without that minus",
        remade=graph(SOFT, node("Log", ["p"], ["y"])),
    ),
    "roots of probabilities": Case(
        graph(SOFT, node("Sqrt", ["p"], ["y"])),
        "the graph changes the probabilities of its Softmax by Sqrt, so that rows do not sum to 1; "
        "make what the Softmax gives the output",
        remade=graph(SOFT, node("Identity", ["p"], ["y"])),
    ),
    "the highest three": Case(
        graph(*TOPK, outputs=[("y", FLOAT, ("N", 3))], weights=THREE),
        "make the tensor before the TopK, with the scores of all classes, the output",
        remade=graph(SOFT, node("Identity", ["p"], ["y"])),
    ),
    "the top class": Case(
        graph(node("ArgMax", ["x"], ["y"], axis=1, keepdims=0), outputs=[("y", INT64, ("N",))]),
        "y is only the class that ArgMax picks; make the scores before the ArgMax an output too",
        remade=graph(
            node("Neg", ["x"], ["s"]), node("ArgMax", ["s"], ["y"], axis=1, keepdims=0),
            outputs=[("y", INT64, ("N",)), ("s", FLOAT, SHAPE)],
        ),
    ),
    "bfloat16 in": Case(
        graph(
            node("Cast", ["x"], ["f"], to=FLOAT), node("Softmax", ["f"], ["y"]),
            inputs=[("x", BFLOAT16, SHAPE)],
        ),
        "put a Cast between it and the rest of the graph",
        remade=graph(
            node("Cast", ["x"], ["b"], to=BFLOAT16), node("Cast", ["b"], ["f"], to=FLOAT),
            node("Softmax", ["f"], ["y"]),
        ),
    ),
    "bfloat16 out": Case(
        graph(
            SOFT, node("Cast", ["p"], ["y"], to=BFLOAT16), outputs=[("y", BFLOAT16, SHAPE)],
        ),
        "output y: BFLOAT16, which Triton has but NumPy has not",
        remade=graph(
            SOFT, node("Cast", ["p"], ["b"], to=BFLOAT16), node("Cast", ["b"], ["y"], to=FLOAT)
        ),
    ),
    "two heads": Case(
        graph(
            SOFT, node("Neg", ["x"], ["n"]), node("Softmax", ["n"], ["q"]),
            outputs=[("p", FLOAT, SHAPE), ("q", FLOAT, SHAPE)],
        ),
        "name one with --output, for example --output p", then={"output": ("p",)},
    ),
    "a Softmax over all at once": Case(
        graph(node("Softmax", ["x"], ["y"], axis=1), opset=11, **IMAGES),
        "export it with a Softmax over one axis (opset 13 or newer)",
        then={"class_axis": 1}, remade=graph(node("Softmax", ["x"], ["y"], axis=1), **IMAGES),
    ),
    "a new opset": Case(
        linear(SOFTMAX, opset=99), "export it with an opset of 17 to 21",
        remade=linear(SOFTMAX, opset=21),
    ),
    "a name": Case(linear(SOFTMAX), "for example my_model_1", {"name": "my model (1)"},
                   {"name": "my_model_1"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_way_out_that_a_refusal_names_works(tmp_path, case):
    one = CASES[case]
    path = tmp_path / "m.onnx"
    one.make(path)
    with pytest.raises(InputError) as raised:
        protected(tmp_path, path, **one.asked)
    assert one.said in str(raised.value), raised.value
    assert not (tmp_path / "models").exists()
    if one.remade is not None:
        one.remade(path)
    assert protected(tmp_path, path, **one.then).heads[0].verified.rows


@pytest.mark.parametrize("case", CASES)
def test_no_refusal_names_a_flag_that_disarms(tmp_path, case):
    one = CASES[case]
    path = tmp_path / "m.onnx"
    one.make(path)
    with pytest.raises(InputError) as raised:
        protected(tmp_path, path, **one.asked)
    said = str(raised.value)
    assert "give --scores" not in said
    if "multi_label" not in one.then:
        assert "give --multi-label" not in said


@pytest.mark.parametrize(
    ("nodes", "kind", "cut"),
    [
        ([node("LogSoftmax", ["x"], ["y"], axis=-1)], "logits", None),
        ([SOFT, node("Log", ["p"], ["y"])], "logits", None),
        ([node("Div", ["x", "half"], ["t"]), node("Softmax", ["t"], ["y"])], "logits", "Softmax"),
        ([SOFT, node("Clip", ["p"], ["y"])], "probabilities", None),
        (
            [SOFT, node("Neg", ["x"], ["n"]), node("Softmax", ["n"], ["q"]),
             node("Mean", ["p", "q"], ["y"])],
            "probabilities", None,
        ),
        ([SOFT, node("Dropout", ["p"], ["y"])], "logits", "Softmax"),
    ],
)  # fmt: skip
def test_an_ending_that_is_clear_needs_no_flag(tmp_path, nodes, kind, cut):
    path = graph(*nodes, weights=HUNDRED)(tmp_path / "m.onnx")
    done = protected(tmp_path, path)
    assert (
        done.heads[0].scores.kind,
        done.heads[0].scores.cut and done.heads[0].scores.cut.op,
    ) == (kind, cut)


def test_a_file_whose_name_is_no_models_is_told_to_name_it(tmp_path):
    path = linear_file(tmp_path / "my model (1).onnx", SOFTMAX)
    with pytest.raises(InputError) as raised:
        protected(tmp_path, path)
    assert str(raised.value) == (
        f"{path}: its name is no model's, so give --name: expected a model name of 1 to 100 "
        "letters, digits, '_', '-' and '.', the first a letter, a digit or '_', got "
        "'my model (1)'; for example my_model_1"
    )
    assert protected(tmp_path, path, name="my_model_1").models[0] == "my_model_1"


@pytest.mark.parametrize("folder", ["with space", "modèles", "a;b", "a(1)"])
def test_a_repository_that_triton_cannot_read_is_refused_before_anything_is_written(
    tmp_path, folder
):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX)
    with pytest.raises(InputError, match="move the model repository"):
        protected(tmp_path / folder, path)
    assert not (tmp_path / folder).exists()


def test_an_operator_that_is_not_known_gets_no_advice_that_cannot_help(tmp_path):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX)
    model = onnx.load(str(path))
    model.graph.node[0].op_type, model.graph.node[0].domain = "MyMatMul", "somewhere"
    model.opset_import.append(helper.make_opsetid("somewhere", 1))
    onnx.save(model, str(path))
    with pytest.raises(InputError, match="cannot load it") as raised:
        protected(tmp_path, path)
    assert "export it with an opset" not in str(raised.value)
