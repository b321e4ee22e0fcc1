"""Knockoff (Orekondy et al., 2019), its random strategy: ask about images of another kind."""

from pathlib import Path

import numpy as np

from exporters.training import datasets
from exporters.training.datasets import Images
from load_tests.stealing.attacks.base import PHOTOS
from load_tests.stealing.collect import Plan
from load_tests.stealing.transfer_set import Queries
from postprocess.errors import InputError

CHUNK = 4096


def knockoff(pool: Images, *, budget: int, rng: np.random.Generator, others: "Others") -> Plan:
    """Return a plan that asks about ``budget`` images of another data set.

    Args:
        pool: gives the shape, (n, height, width, channels) or (n, F); no image of it is used.
        budget: images to ask about. Where the other data set holds fewer, they are shifted
            copies from its second round on.
        rng: draws them.
        others: the other data set.
    """
    for start in range(0, budget, CHUNK):
        count = min(CHUNK, budget - start)
        yield Queries(others.draw(count, rng, pool.shape[1:]))


class Others:
    """Images that have nothing to do with the victim's task, in any shape."""

    def __init__(self, name: str = PHOTOS, data_dir: Path | None = None) -> None:
        """Load them.

        Args:
            name: ``photos``, or a data set of ``exporters.training.datasets``.
            data_dir: where that is.

        Raises:
            InputError: there is no such data set.
        """
        self._photos = name == PHOTOS
        self._images = _photographs() if self._photos else [datasets.load(name, data_dir).x_train]
        self._order = np.empty(0, np.intp)

    def draw(self, count: int, rng: np.random.Generator, shape: tuple[int, ...]) -> Images:
        """Return images at random, of that shape and in [0, 1], or features."""
        if self._photos:
            return _in_shape(np.stack([self._crop(rng) for _ in range(count)]), shape)
        (images,) = self._images
        while len(self._order) < count:
            self._order = np.concatenate([self._order, rng.permutation(len(images))])
        drawn, self._order = self._order[:count], self._order[count:]
        return _in_shape(images[drawn], shape)

    def _crop(self, rng: np.random.Generator) -> Images:
        photograph = self._images[rng.integers(len(self._images))]
        side = int(rng.integers(24, 200))
        top = rng.integers(photograph.shape[0] - side)
        left = rng.integers(photograph.shape[1] - side)
        cut = photograph[top : top + side, left : left + side]
        at = np.linspace(0, side - 1, CROP).round().astype(np.intp)
        return np.asarray(cut[at][:, at])


#: Side of a crop in pixels, before it takes the victim's shape.
CROP = 96


def _photographs() -> list[Images]:
    from sklearn.datasets import load_sample_images

    return [(image / 255).astype(np.float32) for image in load_sample_images().images]


def _in_shape(images: Images, shape: tuple[int, ...]) -> Images:
    import keras

    if images.ndim != 4 or len(shape) != 3:
        if images.shape[1:] != shape:
            raise InputError(
                f"--others: expected rows of shape {list(shape)}, got {list(images.shape[1:])}"
            )
        return images
    height, width, channels = shape
    if images.shape[1:3] != (height, width):
        resized = keras.ops.image.resize(images, (height, width), antialias=True)
        images = np.clip(keras.ops.convert_to_numpy(resized), 0, 1)
    if images.shape[3] != channels:
        images = images.mean(axis=3, keepdims=True).repeat(channels, axis=3)
    return images.astype(np.float32)
