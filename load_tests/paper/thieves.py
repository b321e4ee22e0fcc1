"""The thieves of the paper and stronger ones, by how they differ from the defence study's."""

from typing import Any

from exporters.repository.model_repository import SHIPPED
from load_tests.paper.grids import DefenceSettings

Difference = dict[str, Any]
Changes = tuple[Difference, ...]
LABELS_ONLY: Difference = {"labels_only": True}

#: What the thief of section 4.4 makes of the answers, in the order of Table 4.
TABLE_4: Changes = (
    {},
    {"loss": "same_layer"},
    {"loss": "mse"},
    {"recover": "mlp"},
    LABELS_ONLY,
)
#: What stronger thieves do; those who solve or copy the defence know beta and gamma.
ADAPTIVE: Changes = (
    {"loss": "logits"},
    {"recover": "tail"},
    {"recover": "analytic"},
    {"recover": "mixture", "loss": "logits"},
    {"recover": "table"},
    {"recover": "neural"},
    {"attack": "duplicates"},
    {"attack": "duplicates", "recover": "table"},
)
#: Modes of the defence that the paper does not have, beside the chosen beta and gamma.
HARDENED: dict[str, DefenceSettings] = {
    "decimals 3": {"decimals": 3},
    "decimals 2": {"decimals": 2},
    "decoy": {"defense": "decoy"},
}
#: Thieves that each hardened mode is shown to.
AGAINST_HARDENED: Changes = (
    {},
    {"recover": "tail"},
    {"recover": "table"},
    {"attack": "duplicates", "recover": "table"},
)
#: Answers to set beside the deceptive ones, see ``load_tests.runs.answers``.
HONEST = {"raw probabilities": "", "calibrated, 10 levels": "calibrated 10", "labels": "labels"}
#: What the worked example is served with.
_SHIPPED: DefenceSettings = {
    "defense": "reverse_sigmoid",
    **{name: getattr(SHIPPED, name) for name in ("beta", "gamma", "margin")},
}
#: Thieves of few queries, by how people call them: what they ask, and what they do with it.
FEW: dict[str, tuple[DefenceSettings, Difference]] = {
    "labels alone": (_SHIPPED, LABELS_ONLY),
    "labels, smoothed": (_SHIPPED, {**LABELS_ONLY, "loss": "smoothed"}),
    "labels, spread": (_SHIPPED, {**LABELS_ONLY, "loss": "spread"}),
    "labels, self-training": (_SHIPPED, {**LABELS_ONLY, "learn": "self_training"}),
    "labels, consistency": (_SHIPPED, {**LABELS_ONLY, "learn": "consistency"}),
    "labels, self-distillation": (_SHIPPED, {**LABELS_ONLY, "learn": "self_distillation"}),
    "naive": (_SHIPPED, {}),
    "equation 2 solved": (_SHIPPED, {"recover": "analytic"}),
    "equation 2 solved, logits matched": (_SHIPPED, {"recover": "analytic", "loss": "logits"}),
    "all solutions, logits matched": (_SHIPPED, {"recover": "mixture", "loss": "logits"}),
    "true probabilities": ({}, {}),
    "true probabilities, logits matched": ({}, {"loss": "logits"}),
}
