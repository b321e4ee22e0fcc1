"""Recovery in the manner of D-DAE (Chen et al., IEEE S&P 2023): learnt from many defences.

The adversary does not know beta and gamma. One network learns to undo a whole family of settings,
from what each of them makes of a shadow's answers, and so any setting in between.
"""

from dataclasses import replace
from itertools import product

import numpy as np

from load_tests.asking.endpoint import Answers
from load_tests.stealing.recovery import inverse
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

#: The family.
BETAS = (0.5, 0.8, 1.0, 1.2, 1.5)
GAMMAS = (0.1, 0.2, 0.4, 0.7)


def recover(answers: Answers, shadow: Answers, parameters: Parameters, *, seed: int) -> Answers:
    """Return what a network makes of the answers that was taught with the whole family.

    Args:
        answers: the endpoint's, shape (n, K), rows sum to 1.
        shadow: probabilities of the adversary's own model, shape (m, K).
        parameters: of the defence, of which beta and gamma are not looked at.
        seed: of the network.

    Raises:
        InputError: they are not of a Reverse Sigmoid.
    """
    if parameters.defense != "reverse_sigmoid":
        raise InputError("--recover d_dae: expected answers of Reverse Sigmoid")
    family = [
        Postprocessor(replace(parameters, beta=beta, gamma=gamma))(shadow)
        for beta, gamma in product(BETAS, GAMMAS)
    ]
    undo = inverse.mlp(np.concatenate(family), np.tile(shadow, (len(family), 1)), seed=seed)
    return undo(answers)
