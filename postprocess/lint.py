"""Settings that load and defend badly: what a second pair of eyes would say about them."""

from dataclasses import dataclass

import numpy as np

from postprocess.defences import DEFENCES
from postprocess.parameters import Parameters

#: Narrowest ambiguous band, as a share of the probabilities from 0 to 1, that gets no warning.
NARROW_BAND = 0.05
#: Share of a confident answer's top-1 gap from which a naive substitute learns as from no
#: defence: on digits its agreement was 0.03 at 0.01, 0.46 at 0.05 and 0.95 at 0.1 and 0.2.
WEAK_GAP = 0.05
#: Share from which the answer is the victim's made smoother, which teaches better than the
#: victim does: agreement 0.981 at 0.79 against 0.977 without a defence.
HELPFUL_GAP = 0.75

#: Parameters that do nothing unless another is as said.
_IDLE = {
    parameter: tuple(
        name
        for name, defence in DEFENCES.items()
        if parameter in (*defence.needs, *("seed",) * defence.draws)
    )
    for parameter in ("gamma", "rho", "frequency", "seed", "beta")
}


@dataclass(frozen=True)
class Lint:
    """One thing to think about; ``code`` names its kind for machines."""

    code: str
    message: str


def warnings(
    parameters: Parameters, *, classes: int | None = None, resolution: float = 2.0**-23
) -> list[Lint]:
    """Return what is weak, idle or self-defeating about valid parameters.

    Args:
        parameters: to look at.
        classes: K, where it is known.
        resolution: relative distance of two neighbouring numbers of the answer's type:
            2**-10 for float16, 2**-23 for float32, 2**-52 for float64.
    """
    found = []
    if parameters.defense == "none":
        found.append(Lint("defense-none", "defense none: answers are the victim's own"))
    for name, defences in _IDLE.items():
        # Codebooks keep what the deceptive answers were made with, for the way back.
        used = (*defences, "calibrated", "decoy")
        if getattr(parameters, name) is not None and parameters.defense not in used:
            found.append(
                Lint("idle-parameter", f"{name} does nothing with defense {parameters.defense}")
            )
    if not parameters.preserve_top1 and parameters.defense != "none":
        found.append(Lint("top1-not-kept", "preserve_top1 false: answers may name another class"))
    if parameters.defense == "reverse_sigmoid":
        found += _about_ambiguity(parameters.beta or 0, parameters.gamma or 0)
        found += _about_strength(parameters)
        if classes is not None and classes > 1 and not parameters.multi_label:
            found += _about_resolution(parameters, classes, resolution)
    return found


def ambiguous_band(beta: float, gamma: float) -> float:
    """Return the width of the band of probabilities that share their answer with another, 0 to 1.

    Before the answer is normalised it is ``z(y) = y - beta * (s(gamma * s^-1(y)) - 1/2)``. For
    gamma < 1 z falls from y = 0 on, and the band is (0, y_b), y_b being where z is back at
    z(0) = beta / 2 (1, if it never is). For gamma > 1 and beta * gamma > 1 z falls around 1/2,
    and the band is what shares its z with that middle. Otherwise it is 0: the answer can be
    inverted, or (gamma < 1 with beta * gamma >= 1) has its order reversed from end to end.
    """
    y = np.linspace(0, 1, 20_001)[1:-1]
    with np.errstate(over="ignore"):
        z = y - beta * (1 / (1 + ((1 - y) / y) ** gamma) - 0.5)
    if gamma < 1 and beta * gamma < 1:
        back = np.flatnonzero(z >= beta / 2)
        return float(y[back[0]]) if len(back) else 1.0
    if gamma > 1 and beta * gamma > 1:
        valley = z[len(z) // 2 :].min()
        return float(1 - 2 * y[np.flatnonzero(z >= valley)[0]])
    return 0.0


def _about_ambiguity(beta: float, gamma: float) -> list[Lint]:
    if gamma == 1:
        reason = "gamma 1: every answer belongs to one probability and can be inverted"
        if beta == 1:
            reason = "beta 1 and gamma 1: every answer is uniform except for its top class"
        return [Lint("no-ambiguity", reason)]
    if gamma < 1 and beta * gamma >= 1:
        return [
            Lint(
                "no-ambiguity",
                f"beta * gamma is {beta * gamma:.3g}: with gamma below 1 it has to be below 1 "
                "too, or the order of the classes is the victim's reversed and can be read off",
            )
        ]
    if gamma > 1 and beta * gamma <= 1:
        return [
            Lint(
                "no-ambiguity",
                f"beta * gamma is {beta * gamma:.3g}: with gamma above 1 it has to be above 1 "
                "too, or every answer belongs to one probability and can be inverted",
            )
        ]
    band = ambiguous_band(beta, gamma)
    if band >= NARROW_BAND:
        return []
    return [
        Lint(
            "narrow-band",
            f"beta {beta:g} and gamma {gamma:g} make only {band:.1%} of the probabilities "
            f"ambiguous, and the rest can be inverted; {NARROW_BAND:.0%} is the least to ask for",
        )
    ]


def _about_strength(parameters: Parameters) -> list[Lint]:
    """A saturated answer's cap is 1, and the gap that beta leaves it is 1 - beta of its own."""
    beta = parameters.beta or 0
    if parameters.preserve_top1:
        beta = min(beta, 1 - parameters.margin)
    gap = 1 - beta
    if gap < WEAK_GAP:
        return []
    cause = "margin" if parameters.margin >= 1 - (parameters.beta or 0) else "beta"
    text = (
        f"{cause} {getattr(parameters, cause):g} leaves a confident answer {gap:.0%} of its top-1 "
        "gap, from which substitutes learn "
    )
    if gap >= HELPFUL_GAP:
        return [Lint("helps-the-thief", text + "better than from the victim's own answers")]
    return [Lint("weak", text + f"as if there were no defence; keep it below {WEAK_GAP:.0%}")]


def _about_resolution(parameters: Parameters, classes: int, resolution: float) -> list[Lint]:
    """A saturated answer is flat at about 1 / K, its top class 2 * margin / K above the rest."""
    if not parameters.preserve_top1 or parameters.defense != "reverse_sigmoid":
        return []
    gap = 2 * parameters.margin / classes
    if parameters.decimals is not None:
        unit = 10.0**-parameters.decimals
        if gap >= unit:
            return []
        return [
            Lint(
                "margin-below-resolution",
                f"margin {parameters.margin:g} asks for a top-1 gap of {gap:.2g} in a confident "
                f"answer of {classes} classes, and decimals {parameters.decimals} widens it to "
                f"{unit:g}: clearer to thieves than margin says",
            )
        ]
    step = resolution / classes
    if gap >= step:
        return []
    return [
        Lint(
            "margin-below-resolution",
            f"margin {parameters.margin:g} leaves the top class of a confident answer one step of "
            f"the output's type ahead ({step:.1g}): a client that rounds or averages loses it",
        )
    ]
