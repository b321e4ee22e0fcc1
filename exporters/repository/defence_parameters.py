"""The parameters of the defence as config.pbtxt holds them: each with what it trades, measured."""

from postprocess.parameters import Parameters


def text(parameters: Parameters) -> str:
    """Return the commented ``parameters`` of the defence's config.pbtxt."""
    text = _PARAMETERS.format(**_as_strings(parameters))
    if parameters.class_axis != -1:
        text += _CLASS_AXIS.format(class_axis=parameters.class_axis)
    return text + _MULTI_LABEL if parameters.multi_label else text


def _as_strings(parameters: Parameters) -> dict[str, str]:
    return {
        "defense": parameters.defense,
        "beta": _exact(parameters.beta),
        "gamma": _exact(parameters.gamma),
        "preserve_top1": str(parameters.preserve_top1).lower(),
        "margin": _exact(parameters.margin),
        "scores": parameters.scores,
    }


def _exact(number: float | None) -> str:
    return repr(float(number or 0)).removesuffix(".0")


_PARAMETERS = """\
# Which defence runs: reverse_sigmoid is equation 2 of the paper on every class probability y,
#   yhat = alpha * (y - beta * (s(gamma * s^-1(y)) - 1/2)),
# s the logistic sigmoid, alpha the factor that makes a row sum to 1. calibrated and decoy give
# other answers (protect --answers, calibrate), for which the numbers below count no more.
parameters {{ key: "defense" value: {{ string_value: "{defense}" }} }}

# What the victim's output holds: logits (the maths is exact from them) or probabilities.
parameters {{ key: "scores" value: {{ string_value: "{scores}" }} }}

# What the three numbers below trade, measured on digits by
#   reverse-sigmoid demo --beta BETA --gamma GAMMA --margin MARGIN     (seed 0, 482 queries)
# "stolen" is how often a substitute trained on the answers agrees with the victim, 0.986
# without a defence (less is better); "cosine" is how like the victim's probabilities the
# answers still are (more is better). Top-1 accuracy is the victim's in every line. A thief who
# keeps only the labels gets 0.983 in every line too.
#   beta  gamma  margin   stolen  cosine
#   1.5   0.2    0.01     0.03    0.34     shipped; 0.04 and 0.12 with seeds 1 and 2
#   1.5   0.2    0        0.00    0.34     top-1 gap down to one float32 step: lost by rounding
#   1.5   0.2    0.05     0.46    0.36
#   1.5   0.2    0.2      0.95    0.46     no defence any more
#   1.5   0.1    0.01     0.61    0.40
#   1.5   0.05   0.01     0.97    0.64     no defence any more
#   1.5   0.4    0.01     0.25    0.33
#   0.9   0.2    0.01     0.95    0.46     no defence any more

# Magnitude, 0.001 to 100. Raising it flattens confident answers, until the constraint below
# caps it: for a saturated answer the cap is 1.
parameters {{ key: "beta" value: {{ string_value: "{beta}" }} }}

# Slope, 0.001 to 100. Lowering it keeps more of the victim's probabilities, for thieves too.
# Below 1, with beta * gamma below 1 too, two probabilities share one answer, which makes it
# hard to invert; at 1 no two do.
parameters {{ key: "gamma" value: {{ string_value: "{gamma}" }} }}

# true: beta is lowered, for a row at a time, to where its top class is about to be passed, so
# that the protected top-1 is always the victim's. false: accuracy is lost where beta is large.
parameters {{ key: "preserve_top1" value: {{ string_value: "{preserve_top1}" }} }}

# How far below that cap beta stays, 0 to 0.9, as a share of it: what is left of the top-1 gap
# in a capped row. Raising it shows clients, and thieves, a clearer winner: at 0.01 and 10
# classes the top class leads by about 0.002, so clients must not round to two decimals.
parameters {{ key: "margin" value: {{ string_value: "{margin}" }} }}
"""

_MULTI_LABEL = """
# true: each score is a yes or no of its own, protected as such; a row does not sum to 1.
parameters { key: "multi_label" value: { string_value: "true" } }
"""

_CLASS_AXIS = """
# Which axis of the scores holds the classes, counted from 0 with the batch dimension; every
# other axis is rows. Without it, the last.
parameters {{ key: "class_axis" value: {{ string_value: "{class_axis}" }} }}
"""
