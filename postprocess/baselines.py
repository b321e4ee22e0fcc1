"""The defences that the paper compares Reverse Sigmoid with (section 4.2).

Each is a function of the victim's probabilities, shape (rows, K), of its parameters and of a
generator, and returns what it adds to them, shape (rows, K), float32. The paper's printed formulas
of concave and convex do not parse; this is the reading that fits their names and its Figure 1.
"""

from typing import TYPE_CHECKING

import numpy as np

from postprocess.pseudo_logits import Float32

if TYPE_CHECKING:
    from postprocess.parameters import Parameters


def uniform(y: Float32, parameters: "Parameters", rng: np.random.Generator) -> Float32:
    """Return beta * U(-1, 1), drawn anew for every class of every row."""
    beta = np.float32(parameters.beta or 0)
    drawn: Float32 = rng.random(y.shape, dtype=np.float32)
    drawn *= 2 * beta
    drawn -= beta
    return drawn


def concave(y: Float32, parameters: "Parameters", rng: np.random.Generator) -> Float32:
    """Return beta * U(-1, 1) * exp(-(y / rho)^2 / 2)."""
    return uniform(y, parameters, rng) * _bell(y, parameters)


def convex(y: Float32, parameters: "Parameters", rng: np.random.Generator) -> Float32:
    """Return beta * U(-1, 1) * (1 - exp(-(y / rho)^2 / 2))."""
    return uniform(y, parameters, rng) * (1 - _bell(y, parameters))


def sine(y: Float32, parameters: "Parameters", _: np.random.Generator) -> Float32:
    """Return beta * sin(frequency * y)."""
    wave: Float32 = np.float32(parameters.beta or 0) * np.sin(
        np.float32(parameters.frequency or 0) * y
    )
    return wave


def _bell(y: Float32, parameters: "Parameters") -> Float32:
    bell: Float32 = np.exp(-0.5 * np.square(y / np.float32(parameters.rho or 1)))
    return bell


def normalise(perturbed: Float32) -> Float32:
    """Return the rows, negative entries clipped to 0, made to sum to 1; works in place.

    The paper leaves open what becomes of negative entries. A row of zeros alone, which noise
    larger than the probabilities can make, becomes the uniform row.
    """
    np.maximum(perturbed, 0, out=perturbed)
    total = perturbed.sum(axis=1, keepdims=True, dtype=np.float64)
    perturbed[total[:, 0] <= 0] = 1.0
    total[total <= 0] = perturbed.shape[1]
    perturbed /= total.astype(np.float32)
    return perturbed
