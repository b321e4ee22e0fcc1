import keras
import numpy as np
import pytest

from exporters import architectures
from exporters.train import one_hot, predict, train
from postprocess.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.random((128, 8, 8, 1)).astype(np.float32)


def test_a_training_that_diverges_is_an_error_and_no_network():
    model = architectures.simple((8, 8, 1), 3)
    with pytest.raises(InputError, match="simple: training diverged at step 1: loss nan"):
        train(
            model,
            IMAGES * np.float32(np.nan),
            one_hot(RNG.integers(3, size=128), 3),
            steps=5,
            seed=0,
            flips=False,
        )


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
