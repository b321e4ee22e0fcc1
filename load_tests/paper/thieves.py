"""The thieves of the paper and stronger ones, by how they differ from the defence study's."""

from typing import Any

from load_tests.paper.grids import DefenceSettings

Changes = tuple[dict[str, Any], ...]

#: What the thief of section 4.4 makes of the answers, in the order of Table 4.
TABLE_4: Changes = (
    {},
    {"loss": "same_layer"},
    {"loss": "mse"},
    {"recover": "mlp"},
    {"labels_only": True},
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
