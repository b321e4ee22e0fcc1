"""The attacks by name, in the order in which they are told."""

from load_tests.stealing.attacks.base import StealingAttack
from load_tests.stealing.attacks.jacobian import Jacobian
from load_tests.stealing.attacks.knockoff import Knockoff
from load_tests.stealing.attacks.near_duplicates import NearDuplicates
from load_tests.stealing.attacks.random_images import RandomImages
from load_tests.stealing.attacks.sample import Sample
from postprocess.errors import InputError

ATTACKS: dict[str, StealingAttack] = {
    "sample": Sample(),
    "random": RandomImages(),
    "jacobian": Jacobian(),
    "knockoff": Knockoff(),
    "duplicates": NearDuplicates(),
}


def find(name: str) -> StealingAttack:
    """Return an attack by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in ATTACKS:
        raise InputError(f"attack: expected {', '.join(ATTACKS)} or all, got {name!r}")
    return ATTACKS[name]
