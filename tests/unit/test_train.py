import keras
import numpy as np
import pytest

from exporters import architectures
from exporters.train import one_hot, predict, train
from postprocess.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.random((128, 8, 8, 1)).astype(np.float32)
TARGETS = one_hot(RNG.integers(3, size=128), 3)


def linear():
    """Return a network that trains at once."""
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    return keras.Sequential(layers, name="linear")


@pytest.mark.parametrize("scale", [1e10, 1e20, 1e30, 3e38])
def test_a_training_that_diverges_is_an_error_and_no_network(scale):
    model = architectures.allconv((8, 8, 1), 3)
    # Some libraries' layers make numbers of NaN, so that at times only the weights tell.
    with pytest.raises(InputError, match=r"^allconv: training diverged (at|by) step [1-5]: "):
        train(model, IMAGES * np.float32(scale), TARGETS, steps=5, seed=0, flips=False)


def test_a_loss_that_is_no_number_ends_the_training():
    with pytest.raises(InputError, match=r"^linear: training diverged at step 1: loss nan$"):
        train(
            linear(), IMAGES, TARGETS, steps=5, seed=0, flips=False,
            loss=lambda targets, logits: logits * np.float32(np.nan),
        )  # fmt: skip


@pytest.mark.parametrize(("steps", "seen_at"), [(5, 5), (1000, 100)])
def test_weights_that_are_no_numbers_end_a_training_whose_loss_stays_finite(steps, seen_at):
    def loss(targets, logits):
        """Return 0, whatever the weights; its slope is 0 times infinity."""
        root = keras.ops.sqrt(keras.ops.square(logits - keras.ops.stop_gradient(logits)))
        return keras.ops.where(keras.ops.isnan(root), 0.0, root)

    done = []
    said = rf"^linear: training diverged by step {seen_at}: .*kernel is not finite$"
    with pytest.raises(InputError, match=said):
        train(
            linear(), IMAGES, TARGETS, steps=steps, seed=0, flips=False, loss=loss,
            progress=lambda step, total: done.append(step),
        )  # fmt: skip
    assert len(done) == seen_at - 1


def spoilt(values, value):
    """Return a copy with one number of it changed."""
    changed = values.copy()
    changed.flat[-1] = value
    return changed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["images", "targets"])
def test_what_is_not_finite_is_refused_before_any_training(what, value):
    model = architectures.simple((8, 8, 1), 3)
    before = [weight.numpy() for weight in model.weights]
    given = {"images": IMAGES, "targets": TARGETS}
    given[what] = spoilt(given[what], value)
    said = f"^simple: the {what} to learn from are not all finite numbers$"
    with pytest.raises(InputError, match=said):
        train(model, **given, steps=5, seed=0, flips=False)
    assert all(
        np.array_equal(weight, old) for weight, old in zip(model.weights, before, strict=True)
    )


@pytest.mark.parametrize(
    ("images", "targets"),
    [(IMAGES[:0], TARGETS[:0]), (IMAGES[:5], TARGETS), (IMAGES, TARGETS[:, :2])],
)
def test_images_without_a_target_each_are_refused(images, targets):
    with pytest.raises(InputError, match=r"^linear: expected at least one image and a row of 3"):
        train(linear(), images, targets, steps=5, seed=0, flips=False)


def test_scores_that_are_not_finite_are_no_prediction():
    model = linear()
    model.layers[-1].bias.assign([0, np.inf, 0])
    with pytest.raises(InputError, match=r"^linear: answered with scores that are not finite"):
        predict(model, IMAGES)


@pytest.mark.slow
def test_the_papers_allconv_learns_at_its_rate():
    keras.utils.set_random_seed(0)
    model = architectures.allconv((8, 8, 1), 2)
    labels = (IMAGES[:, :4].mean(axis=(1, 2, 3)) > IMAGES[:, 4:].mean(axis=(1, 2, 3))).astype(int)
    images = IMAGES.copy()
    images[labels == 1, :4] += 1
    train(model, images, one_hot(labels, 2), steps=40, seed=0, flips=False)
    logits = predict(model, images)
    assert np.isfinite(logits).all()
    assert (logits.argmax(axis=1) == labels).mean() > 0.9
