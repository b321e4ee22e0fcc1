"""The networks of the paper, and one for other inputs, as Keras models that end in logits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from exporters.training import tokens
from exporters.training.datasets import Dataset
from exporters.training.mlp import mlp
from postprocess.errors import InputError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Architecture:
    """One kind of network."""

    #: Builds it, freshly initialised, for an input's shape, (height, width, channels) of an image,
    #: and the number of classes K; its output has shape (batch, K) and holds logits.
    build: Callable[[Shape, int], Any]
    least: int = 4  #: height and width that its inputs need at least; 0 where any shape will do
    texts: bool = False  #: whether it reads ids of texts, of the shape (-1,)

    def takes(self, shape: Shape) -> bool:
        """Return whether it is for inputs of that shape."""
        if self.texts or shape == (-1,):
            return self.texts and shape == (-1,)
        return not self.least or (len(shape) == 3 and min(shape[:2]) >= self.least)

    @property
    def wanted(self) -> str:
        """What it takes, in words."""
        if self.texts:
            return "ids of texts"
        return f"images of at least {self.least} x {self.least} pixels" if self.least else "numbers"


def find(name: str, shape: Shape | None = None) -> Architecture:
    """Return an architecture by name.

    Args:
        name: one of ``ARCHITECTURES``.
        shape: of the inputs that it is for, where they are known.

    Raises:
        InputError: the name is unknown, or the network takes no such inputs.
    """
    if name not in ARCHITECTURES:
        raise InputError(f"unknown architecture {name!r}; known are {', '.join(ARCHITECTURES)}")
    found = ARCHITECTURES[name]
    if shape is not None and not found.takes(shape):
        raise InputError(
            f"--architecture {name}: expected {found.wanted}, got "
            f"{' x '.join(map(str, shape[:2]))}; rows of features take --architecture mlp"
        )
    return found


def default(shape: Shape) -> str:
    """Return the name of the network that is trained where none is named."""
    return next(name for name, each in ARCHITECTURES.items() if each.takes(shape))


def view(name: str, dataset: Dataset) -> Dataset:
    """Return a data set as a network reads it: one of texts as their ids.

    Raises:
        InputError: the name is unknown, or the network cannot read it.
    """
    seen = dataset.of_texts() if find(name).texts else dataset
    find(name, seen.input_shape)
    return seen


def build(name: str, shape: Shape, classes: int) -> Any:
    """Return a freshly initialised Keras model; arguments and errors are those of ``find``."""
    return find(name, shape).build(shape, classes)


def simple(input_shape: Shape, classes: int) -> Any:
    """Return "Simple" of section 4.1: 64-64-pool-128-128-pool, dense 256-256.

    The paper gives neither padding nor activations: 'same' (digits of 8 x 8 pixels would
    otherwise shrink to nothing) and ReLU here. Its softmax is left to the loss and to the
    defence, both of which are exact from logits.
    """
    import keras
    from keras import layers

    model = keras.Sequential(name="simple")
    model.add(keras.Input(input_shape, name="image"))
    for filters in (64, 128):
        model.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        model.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        model.add(layers.MaxPooling2D(2))
    model.add(layers.Flatten())
    model.add(layers.Dense(256, activation="relu"))
    model.add(layers.Dense(256, activation="relu"))
    model.add(layers.Dense(classes, name="scores"))
    return model


def allconv(input_shape: Shape, classes: int) -> Any:
    """Return "AllConv" of section 4.1: the All-CNN-C of Springenberg et al. (2014).

    Convolutions only, of stride 2 where others pool, and a mean over the last map. He's initial
    weights, and no dropout and no weight decay: the paper names neither.
    """
    import keras
    from keras import layers

    model = keras.Sequential(name="allconv")
    model.add(keras.Input(input_shape, name="image"))
    sides = ((96, 3, 1), (96, 3, 1), (96, 3, 2), (192, 3, 1), (192, 3, 1), (192, 3, 2))
    for filters, side, stride in (*sides, (192, 3, 1), (192, 1, 1)):
        model.add(
            layers.Conv2D(
                filters,
                side,
                strides=stride,
                padding="same",
                activation="relu",
                kernel_initializer="he_normal",
            )
        )
    model.add(layers.Conv2D(classes, 1, kernel_initializer="he_normal"))
    model.add(layers.GlobalAveragePooling2D(name="scores"))
    return model


def mobilenet(input_shape: Shape, classes: int) -> Any:
    """Return "MobileNet" of section 4.1, Keras's own (Howard et al., 2017), untrained."""
    import keras

    return _application(keras.applications.MobileNet, "mobilenet", 32, input_shape, classes)


def xception(input_shape: Shape, classes: int) -> Any:
    """Return "Xception" of section 4.1, Keras's own (Chollet, 2017), untrained."""
    import keras

    return _application(keras.applications.Xception, "xception", 71, input_shape, classes)


def _application(
    build: Callable[..., Any], name: str, least: int, input_shape: Shape, classes: int
) -> Any:
    """Return one of Keras's own networks, of images no smaller than it can take.

    Smaller images are enlarged to ``least`` pixels a side; what the paper did is not said. Batch
    normalisation follows with a momentum of 0.9. With Keras's 0.99 its statistics lag so far
    behind the weights that MobileNet, right on 75 percent of Fashion-MNIST's batches after 600
    steps, answered at chance with the statistics that it is served with.
    """
    import keras
    from keras import layers

    height, width, channels = input_shape
    enlarged = max(height, least), max(width, least)
    model = keras.Sequential(name=name)
    model.add(keras.Input(input_shape, name="image"))
    if enlarged != (height, width):
        model.add(layers.Resizing(*enlarged))
    body = build(include_top=False, weights=None, input_shape=(*enlarged, channels), pooling="avg")
    for layer in body.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.9
    model.add(body)
    model.add(layers.Dense(classes, name="scores"))
    return model


def optimizer(model: Any) -> Any:
    """Return the optimizer that the paper trains a network with (section 4.1).

    SGD for AllConv, Adam for MobileNet and Xception, RMSProp for Simple. The paper names no
    rates; SGD has a momentum of 0.9 here, and a rate of 0.01: AllConv diverges at 0.05.
    """
    import keras

    if model.name == "allconv":
        return keras.optimizers.SGD(0.01, momentum=0.9)
    if model.name in ("mobilenet", "xception"):
        return keras.optimizers.Adam(1e-3)
    if model.name == "tokens":  # most ids are in few batches: at 1e-3 they hardly move
        return keras.optimizers.Adam(2e-2)
    return keras.optimizers.RMSprop(1e-3)


ARCHITECTURES = {
    "simple": Architecture(simple),
    "allconv": Architecture(allconv),
    "mobilenet": Architecture(mobilenet),
    "xception": Architecture(xception),
    "mlp": Architecture(mlp, least=0),
    "tokens": Architecture(tokens.network, least=0, texts=True),
}
