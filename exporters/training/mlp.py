"""A network for inputs that are no images."""

from typing import Any


def mlp(input_shape: tuple[int, ...], classes: int) -> Any:
    """Return two dense layers of 256 over the input, flattened; not of the paper."""
    import keras
    from keras import layers

    model = keras.Sequential(name="mlp")
    model.add(keras.Input(input_shape, name="image" if len(input_shape) == 3 else "features"))
    model.add(layers.Flatten())
    model.add(layers.Dense(256, activation="relu"))
    model.add(layers.Dense(256, activation="relu"))
    model.add(layers.Dense(classes, name="scores"))
    return model
