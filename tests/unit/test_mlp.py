import numpy as np
import pytest
from scipy.special import softmax

from exporters.training import architectures, datasets, keras_to_onnx
from exporters.training.train import predict, train_victim
from load_tests.data.drawn import draw_from
from load_tests.stealing.campaign import Campaign, CampaignSettings
from load_tests.stealing.collect import Manner
from load_tests.stealing.thief import Thief
from postprocess.errors import InputError

pytestmark = pytest.mark.slow

FEATURES, CLASSES = 20, 4
WEIGHTS = np.random.default_rng(1).normal(size=(FEATURES, CLASSES)).astype(np.float32)


def victim(rows):
    """Probabilities of a linear classifier of features."""
    return softmax(5 * (rows.reshape(len(rows), FEATURES) - 0.5) @ WEIGHTS, axis=1)


@pytest.fixture
def table(tmp_path):
    """A data set of features, in an .npz file."""
    rows = np.random.default_rng(0).integers(0, 256, (1500, FEATURES), np.uint8)
    labels = victim(rows / 255).argmax(axis=1)
    path = tmp_path / "table.npz"
    np.savez(path, x_train=rows[:1200], y_train=labels[:1200], x_test=rows[1200:],
             y_test=labels[1200:])  # fmt: skip
    return str(path)


@pytest.mark.parametrize("attack", ["sample", "random", "jacobian"])
def test_an_mlp_steals_a_model_of_inputs_that_are_no_images(tmp_path, table, attack):
    settings = CampaignSettings(
        url="here", model="table", victim="", data=table, queries=300, architecture="mlp",
        steps=200, beta=1, gamma=1, margin=0,
    )  # fmt: skip
    campaign = Campaign(
        tmp_path / "out", settings, drawn=draw_from(table, None, 0), protected=victim, victim=None,
        manner=Manner(),
    )  # fmt: skip
    (result,) = campaign.run([Thief(attack=attack)], [300])
    assert result["agreement"] > 0.6
    assert result["cosine"] > 0.7


def test_an_mlp_learns_images_flattened_and_onnx_computes_what_it_does(tmp_path):
    digits = datasets.load("digits")
    held_off = datasets.hold_off(digits, seed=0)
    model = train_victim(digits, held_off, "mlp", steps=200, seed=0)
    logits = predict(model, digits.x_test)
    assert (logits.argmax(axis=1) == digits.y_test).mean() > 0.8
    assert keras_to_onnx.export(model, tmp_path / "m.onnx", check_on=digits.x_test[:20]) < 1e-3


def test_an_mlp_takes_any_shape():
    for shape in ((FEATURES,), (1, FEATURES, 1), (4, 5), (8, 8, 3)):
        assert architectures.build("mlp", shape, CLASSES).output_shape == (None, CLASSES)


@pytest.mark.parametrize("name", ["simple", "allconv", "mobilenet", "xception"])
def test_a_network_of_images_is_refused_for_rows_of_features(name):
    with pytest.raises(InputError, match=rf"{name}: .* got 1 x {FEATURES}; .* --architecture mlp"):
        architectures.find(name, (1, FEATURES, 1))
    assert architectures.find(name, (8, 8, 1)) is architectures.find(name)
    assert architectures.find("mlp", (1, FEATURES, 1)) is architectures.find("mlp")
