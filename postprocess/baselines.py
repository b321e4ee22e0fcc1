"""The defences that the paper compares Reverse Sigmoid with (section 4.2)."""

import numpy as np

from postprocess.parameters import Parameters
from postprocess.pseudo_logits import Float32


def noise(y: Float32, parameters: Parameters, rng: np.random.Generator) -> Float32:
    """Return what the defence adds to the probabilities, shape (rows, K), float32.

    - ``uniform``: beta * U(-1, 1)
    - ``uniform_concave``: beta * U(-1, 1) * exp(-(y / rho)^2 / 2)
    - ``uniform_convex``: beta * U(-1, 1) * (1 - exp(-(y / rho)^2 / 2))
    - ``sine``: beta * sin(frequency * y)

    The paper's printed formulas of the middle two do not parse; this is the reading that fits
    their names and its Figure 1.

    Args:
        y: the victim's probabilities, shape (rows, K).
        parameters: of one of these defences.
        rng: of U(-1, 1), drawn anew for every class of every row.
    """
    beta = np.float32(parameters.beta or 0)
    if parameters.defense == "sine":
        wave: Float32 = beta * np.sin(np.float32(parameters.frequency or 0) * y)
        return wave
    drawn: Float32 = rng.random(y.shape, dtype=np.float32)
    drawn *= 2 * beta
    drawn -= beta
    if parameters.defense != "uniform":
        bell = np.exp(-0.5 * np.square(y / np.float32(parameters.rho or 1)))
        drawn *= bell if parameters.defense == "uniform_concave" else 1 - bell
    return drawn


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
