"""The defence as ONNX operators gives the numbers that it gives in Triton's Python backend."""

import numpy as np
import onnx
import onnxruntime
import oracle
import pytest
from victims import passing

from exporters.fusing import fused
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.scores import BadRowsError

SHIPPED = {"beta": 1.5, "gamma": 0.2, "margin": 0.01}


def parameters(**changes):
    return Parameters(**{"scores": "logits", **SHIPPED, **changes})


def session(model):
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def answer(scores, given, *, opset=17):
    model = passing(["rows", *scores.shape[1:]], scores.dtype.type, opset)
    fused.fuse(model, "scores", given)
    return session(model).run(None, {"x": scores})[0]


def many_rows(classes, scales=(1e-12, 1e-6, 1e-3, 0.1, 1, 5, 30, 300, 3000)):
    """Rows from nearly uniform to one-hot; in every seventh the first class ties with the top."""
    rng, count = np.random.default_rng(classes), 200 if classes < 1000 else 60
    rows = np.concatenate([rng.normal(size=(count, classes)) * scale for scale in scales])
    rows = rows.astype(np.float32)
    rows[::7, 0] = rows[::7].max(axis=1)
    return rows


@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"margin": 0.0},
        {"beta": 0.9, "gamma": 0.05, "margin": 0.1},
        {"beta": 1.0, "gamma": 2.5},
        {"beta": 100.0, "gamma": 3.0, "margin": 0.5},
        {"beta": 100.0, "gamma": 100.0, "margin": 0.0},
        {"beta": 3.0, "gamma": 0.001},
        {"beta": 3.0, "gamma": 0.059},
        {"beta": 3.0, "gamma": 0.06},
        {"beta": 1.0, "preserve_top1": False},
        {"beta": 1.0, "gamma": 4.0, "preserve_top1": False},
    ],
)
def test_the_graph_answers_as_the_defence_does(classes, changes):
    given, logits = parameters(**changes), many_rows(classes)
    got = answer(logits, given)
    assert got.dtype == np.float32
    assert np.abs(got - Postprocessor(given, native=False)(logits)).max() <= 1e-6
    if given.preserve_top1:
        others = np.sort(got, axis=1)
        assert (got.argmax(axis=1) == logits.argmax(axis=1)).all()
        assert (others[:, -1] > others[:, -2]).all()


def test_a_tie_stays_one_under_the_steepest_perturbation():
    given = parameters(beta=100.0, gamma=100.0, preserve_top1=False)
    assert (answer(np.array([[3, 3]], np.float32), given) == 0.5).all()


def test_the_graph_answers_as_the_equations_do():
    logits = many_rows(10, scales=(0.1, 1, 5, 30))
    wanted = oracle.protected(logits, kind="logits", **SHIPPED, preserve_top1=True)
    assert np.abs(answer(logits, parameters()) - wanted).max() <= 1e-6


@pytest.mark.parametrize("opset", [0, 11, 12, 13, 17, 18, 21])
def test_every_operator_set_from_11_on_will_do(opset):
    given, logits = parameters(), many_rows(10)
    got = answer(logits, given, opset=opset)
    assert np.abs(got - Postprocessor(given)(logits)).max() <= 1e-6


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float16, 2 * np.finfo(np.float16).eps), (np.float64, 1e-6)]
)
def test_the_answer_has_the_type_of_the_scores(dtype, tolerance):
    given, logits = parameters(), many_rows(10, scales=(0.1, 1, 5)).astype(dtype)
    got = answer(logits, given)
    assert got.dtype == dtype
    assert np.abs(got - Postprocessor(given)(logits)).max() <= tolerance
    assert (got.argmax(axis=1) == logits.argmax(axis=1)).all()


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("gamma", [0.001, 0.2, 3.0])
def test_probabilities_are_taken_too_one_hot_rows_among_them(gamma):
    given = parameters(scores="probabilities", gamma=gamma)
    rows = np.concatenate([softmax(many_rows(10)), np.eye(10, dtype=np.float32)])
    rows[0] = [0.5, 0.5, *[0] * 8]
    assert np.abs(answer(rows, given) - Postprocessor(given)(rows)).max() <= 1e-6


@pytest.mark.parametrize("classes", [1, 7])
@pytest.mark.parametrize("scores", ["logits", "probabilities"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"beta": 50.0, "margin": 0.0},
        {"beta": 1.0, "gamma": 3.0, "margin": 0.3},
        {"beta": 2.0, "gamma": 3.0, "preserve_top1": False},
    ],
)
def test_yes_or_no_scores_keep_their_side(classes, scores, changes):
    given = parameters(scores=scores, multi_label=classes > 1, **changes)
    rows = many_rows(classes, scales=(1e-7, 1e-3, 1, 5, 50))
    rows[0] = 0
    if scores == "probabilities":
        rows = (1 / (1 + np.exp(-rows.astype(np.float64)))).astype(np.float32)
    got = answer(rows, given)
    assert np.abs(got - Postprocessor(given)(rows)).max() <= 1e-6
    if given.preserve_top1:
        middle = 0.0 if scores == "logits" else 0.5
        assert ((got > 0.5) == (rows > middle)).all()
        assert ((got < 0.5) == (rows < middle)).all()


def test_a_score_without_an_axis_of_classes_is_a_yes_or_no():
    given = parameters()
    rows = many_rows(1)[:, 0]
    assert np.abs(answer(rows, given) - Postprocessor(given)(rows[:, None])[:, 0]).max() <= 1e-6


def test_all_axes_but_the_last_are_rows():
    given = parameters()
    rows = many_rows(10).reshape(-1, 2, 4, 10)
    wanted = Postprocessor(given)(rows.reshape(-1, 10)).reshape(rows.shape)
    assert np.abs(answer(rows, given) - wanted).max() <= 1e-6


@pytest.mark.parametrize("decimals", [1, 2, 3, 6])
def test_decimals_are_given_as_the_defence_gives_them(decimals):
    # Where float32's last digit decides who gets a unit, one may go to another class.
    given = parameters(decimals=decimals)
    logits = many_rows(10, scales=(1, 5, 30))
    got, wanted = answer(logits, given), Postprocessor(given)(logits)
    units = np.rint(got.astype(np.float64) * 10**decimals)
    assert np.abs(units / 10**decimals - got).max() <= 1e-7
    assert (units.sum(axis=1) == 10**decimals).all()
    ordered = np.sort(units, axis=1)
    assert (ordered[:, -1] > ordered[:, -2]).all()
    assert (got.argmax(axis=1) == logits.argmax(axis=1)).all()
    differs = np.abs(got - wanted).max(axis=1) > 1e-6
    assert differs.mean() <= 0.02
    assert np.abs(got - wanted).max() <= 1.01 * 10.0**-decimals


@pytest.mark.parametrize(
    ("scores", "bad"),
    [
        ("logits", [np.nan, 1, 2]),
        ("logits", [np.inf, 1, 2]),
        ("logits", [-np.inf, 1, 2]),
        ("logits", [np.nan, np.nan, np.nan]),
        ("probabilities", [np.nan, 0.5, 0.5]),
        ("probabilities", [0.6, 0.6, 0.2]),
        ("probabilities", [-0.1, 0.6, 0.5]),
    ],
)
@pytest.mark.parametrize("decimals", [None, 2])
def test_a_row_that_the_defence_refuses_gets_no_answer_and_no_other_row(scores, bad, decimals):
    given = parameters(scores=scores, decimals=decimals)
    rows = np.array([[0.2, 0.3, 0.5], bad, [0.7, 0.2, 0.1]], np.float32)
    with pytest.raises(BadRowsError):
        Postprocessor(given)(rows)
    got = answer(rows, given)
    assert (got[1] == -1).all()
    assert np.abs(got[[0, 2]] - Postprocessor(given)(rows[[0, 2]])).max() <= 1e-6


@pytest.mark.parametrize(
    ("scores", "bad"), [("logits", [np.nan, np.inf, -np.inf]), ("probabilities", [np.nan, 1.1, -1])]
)
def test_a_bad_yes_or_no_is_no_answer(scores, bad):
    given = parameters(scores=scores)
    got = answer(np.array([[0.7], *[[one] for one in bad]], np.float32), given)
    assert (got[1:] == -1).all()
    assert (got[0] >= 0).all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"defense": "none"},
            "expected reverse_sigmoid, calibrated, decoy, got none",
        ),
        (
            {"defense": "sine", "frequency": 3.0},
            "expected reverse_sigmoid, calibrated, decoy, got sine",
        ),
    ],
)
def test_what_onnx_cannot_express_is_refused_with_the_reason(changes, reason):
    model = passing(["rows", 3])
    before = model.SerializeToString()
    with pytest.raises(InputError, match=reason):
        fused.fuse(model, "scores", parameters(**changes))
    assert model.SerializeToString() == before


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("classes", [1, 2, 10])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_a_decoy_in_the_graph_is_the_one_of_the_ensemble(classes, kind, dtype):
    given = Parameters(scores=kind, defense="decoy", seed=5)
    rows = many_rows(classes, scales=(0.1, 1, 5)).astype(dtype)
    if kind == "probabilities":
        wide = rows.astype(np.float64)
        rows = softmax(wide) if classes > 1 else 1 / (1 + np.exp(-wide))
        rows = rows.astype(dtype)
    step = 1e-3 if dtype == np.float16 else 1e-6
    assert np.abs(answer(rows, given) - Postprocessor(given)(rows)).max() <= step


def test_an_old_graph_and_a_fused_one_are_refused():
    with pytest.raises(InputError, match="expected opset 11 or newer, got 9"):
        fused.fuse(passing(["rows", 3], opset=9), "scores", parameters())
    model = passing(["rows", 3])
    fused.fuse(model, "scores", parameters())
    with pytest.raises(InputError, match="holds a defence already"):
        fused.fuse(model, "scores", parameters())


def test_retuned_means_fused_with_the_other_parameters():
    logits, other = many_rows(10), parameters(beta=0.9, gamma=0.1, decimals=3)
    model = passing(["rows", 10])
    fused.fuse(model, "scores", parameters())
    assert fused.read_parameters(model, where="graph") == parameters()
    fused.retune(model, other)
    anew = passing(["rows", 10])
    fused.fuse(anew, "scores", other)
    assert model == anew
    assert fused.read_parameters(model, where="graph") == other
    assert (session(model).run(None, {"x": logits})[0] == answer(logits, other)).all()


def test_a_defence_that_was_changed_by_hand_is_noticed():
    model = passing(["rows", 10])
    with pytest.raises(InputError, match="the graph holds none"):
        fused.refuse_altered(model)
    fused.fuse(model, "scores", parameters())
    fused.refuse_altered(model)
    (beta,) = [one for one in model.graph.initializer if one.name.endswith("/half_beta")]
    beta.raw_data = np.array(0.001).tobytes()
    with pytest.raises(InputError, match="not the one that its parameters make"):
        fused.refuse_altered(model)
