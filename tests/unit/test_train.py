import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from exporters.training import architectures
from exporters.training.train import Watch, fresh, one_hot, predict, train
from load_tests.stealing import losses
from postprocess.errors import InputError

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
IMAGES = RNG.random((128, 8, 8, 1)).astype(np.float32)
TARGETS = one_hot(RNG.integers(3, size=128), 3)


def linear():
    """Return a network that trains at once."""
    import keras

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
    import keras

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


def test_the_papers_allconv_learns_at_its_rate():
    import keras

    keras.utils.set_random_seed(0)
    model = architectures.allconv((8, 8, 1), 2)
    labels = (IMAGES[:, :4].mean(axis=(1, 2, 3)) > IMAGES[:, 4:].mean(axis=(1, 2, 3))).astype(int)
    images = IMAGES.copy()
    images[labels == 1, :4] += 1
    train(model, images, one_hot(labels, 2), steps=40, seed=0, flips=False)
    logits = predict(model, images)
    assert np.isfinite(logits).all()
    assert (logits.argmax(axis=1) == labels).mean() > 0.9


def substitute(loss, seed=3, images=IMAGES, progress=None):
    """Return the weights of a network trained by the trainer of its kind."""
    model, trainer = fresh("simple", (8, 8, 1), 3, seed=seed, loss=loss)
    train(
        model, images, TARGETS, steps=30, seed=seed, flips=True, trainer=trainer, progress=progress
    )
    return [weight.numpy() for weight in model.weights]


def test_what_was_trained_before_by_the_same_trainer_leaves_no_trace():
    import keras

    loss = losses.LOSSES["mse"].make(None)
    first = substitute(loss)
    substitute(loss, seed=4, images=1 - IMAGES)
    with pytest.raises(ZeroDivisionError):  # a training that ends early
        substitute(loss, progress=lambda done, total: 1 / (done - 20))
    again = substitute(loss)
    keras.utils.set_random_seed(3)
    model = architectures.build("simple", (8, 8, 1), 3)
    train(model, IMAGES, TARGETS, steps=30, seed=3, flips=True, loss=loss)  # by one of its own
    for one, other, alone in zip(first, again, model.weights, strict=True):
        assert np.array_equal(one, other)
        assert np.array_equal(one, alone.numpy())


def test_a_network_keeps_its_weights_while_others_of_its_kind_are_trained():
    model, trainer = fresh("mlp", (8, 8, 1), 3, seed=0)
    train(model, IMAGES, TARGETS, steps=5, seed=0, flips=False, trainer=trainer)
    before = [weight.numpy() for weight in model.weights]
    other, same = fresh("mlp", (8, 8, 1), 3, seed=1)
    assert same is trainer
    train(other, IMAGES, TARGETS, steps=5, seed=1, flips=False, trainer=trainer)
    assert all(np.array_equal(old, now) for old, now in zip(before, model.weights, strict=True))


def test_whoever_watches_sees_the_weights_of_that_step_and_progress_counts_each():
    seen, done = {}, []

    def look(model, step):
        seen[step] = [weight.numpy() for weight in model.weights]

    model, trainer = fresh("mlp", (8, 8, 1), 3, seed=0)
    train(
        model, IMAGES, TARGETS, steps=40, seed=0, flips=False, trainer=trainer,
        watch=Watch(frozenset({7, 40}), look), progress=lambda step, total: done.append(step),
    )  # fmt: skip
    assert done == list(range(1, 41))
    other, _ = fresh("mlp", (8, 8, 1), 3, seed=0)
    train(other, IMAGES, TARGETS, steps=40, seed=0, flips=False, trainer=trainer,
          watch=Watch(frozenset({7}), lambda *_: None))  # fmt: skip
    for at, expected in ((40, model), (40, other)):
        assert all(np.array_equal(a, b) for a, b in zip(seen[at], expected.weights, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(seen[7], seen[40], strict=True))


def test_steps_are_keras_s_own_and_the_last_quarter_is_at_half_the_rate():
    import keras

    model, trainer = fresh("mlp", (8, 8, 1), 3, seed=0)
    theirs = keras.models.clone_model(model)
    theirs.set_weights(model.get_weights())
    optimizer = keras.optimizers.RMSprop(1e-3)
    theirs.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True))
    blank = IMAGES[:64] * 0  # which shifts leave as they are
    train(model, blank, TARGETS[:64], steps=4, seed=0, flips=False, trainer=trainer)
    for step in range(4):
        if step == 3:
            optimizer.learning_rate = 5e-4
        theirs.train_on_batch(blank, TARGETS[:64])
    for mine, other in zip(model.weights, theirs.weights, strict=True):
        assert np.allclose(mine, other, atol=1e-5)


ON_JAX = """
import numpy as np
from exporters.training import trainer
from exporters.training.train import fresh, predict, train
rng = np.random.default_rng(0)
images = rng.random((128, 6)).astype(np.float32)
targets = np.eye(3, dtype=np.float32)[rng.integers(3, size=128)]
def trained():
    trainer.kept.cache_clear()
    model, place = fresh("mlp", (6,), 3, seed=0)
    train(model, images, targets, steps=20, seed=0, flips=False, trainer=place)
    return predict(model, images)
compiled = trained()
assert trainer._ADVANCES.pop("jax")
print(np.abs(compiled - trained()).max(), np.abs(compiled).max())
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_jax_takes_the_same_steps_compiled_as_kerass_own():
    done = subprocess.run(
        [sys.executable, "-c", ON_JAX], env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    apart, largest = map(float, done.stdout.split())
    assert apart < 1e-4 * largest
