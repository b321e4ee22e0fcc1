import numpy as np
import oracle
import pytest

from load_tests.stealing import defence_layer, losses
from postprocess.errors import InputError
from postprocess.parameters import Parameters

pytestmark = pytest.mark.slow

SETTINGS = [
    {"beta": 1.5, "gamma": 0.2, "margin": 0.01},
    {"beta": 0.9, "gamma": 0.4, "margin": 0.0},
    {"beta": 0.5, "gamma": 0.1, "preserve_top1": False},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("classes", [3, 10])
def test_the_copy_of_the_defence_computes_equation_2(settings, classes):
    import keras

    logits = np.random.default_rng(0).normal(size=(200, classes)).astype(np.float32) * 2
    odds, y = oracle.log_odds(logits)
    expected = oracle.reverse_sigmoid(odds, y, **{"preserve_top1": True, **settings})
    parameters = Parameters(scores="probabilities", **settings)
    copied = defence_layer.protect(keras.ops.softmax(logits), parameters)
    assert np.abs(keras.ops.convert_to_numpy(copied) - expected).max() < 2e-5


@pytest.mark.parametrize("name", [n for n, loss in losses.LOSSES.items() if not loss.of_labels])
def test_every_loss_is_least_where_the_substitute_answers_as_the_endpoint_did(name):
    import keras

    rng = np.random.default_rng(1)
    logits = rng.normal(size=(50, 6)).astype(np.float32)
    parameters = Parameters(scores="probabilities", beta=0.5, gamma=0.4)
    answers = keras.ops.softmax(logits)
    if name == "same_layer":
        answers = defence_layer.protect(answers, parameters)
    loss = losses.LOSSES[name].make(parameters)
    least = keras.ops.convert_to_numpy(loss(answers, logits))
    assert least.shape == (50,)
    for _ in range(20):
        moved = logits + rng.normal(size=logits.shape).astype(np.float32)
        assert (keras.ops.convert_to_numpy(loss(answers, moved)) >= least - 1e-6).all()


@pytest.mark.parametrize(
    ("name", "least"),
    [
        # Where the label has the probability .91 of ten classes: the tenth is spread over all.
        ("smoothed", np.log(0.91 / 0.01)),
        ("spread", losses.LEAD),
    ],
)
def test_a_loss_of_labels_wants_one_lead_of_the_label(name, least):
    labels = np.eye(10, dtype=np.float32)[[3]]
    loss = losses.LOSSES[name].make(None)
    leads = np.linspace(0, 12, 2401).astype(np.float32)
    values = np.asarray(loss(labels.repeat(len(leads), axis=0), leads[:, None] * labels))
    assert leads[int(np.argmin(values))] == pytest.approx(least, abs=0.01)


def test_at_a_higher_temperature_the_same_logits_are_less_sure():
    labels = np.eye(3, dtype=np.float32)
    loss = losses.LOSSES["tempered"].make(None)
    assert float(loss(labels, 4 * labels)[0]) == pytest.approx(np.log(1 + 2 * np.exp(-2)), abs=1e-5)


def test_an_unknown_loss_and_one_without_its_defence_are_refused():
    with pytest.raises(InputError, match="--loss: expected cross_entropy, mse, "):
        losses.LOSSES["hinge"]
    with pytest.raises(InputError, match="--loss same_layer: expected the beta and gamma"):
        losses.LOSSES["same_layer"].make(None)
