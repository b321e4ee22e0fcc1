"""Every attack by name."""

from collections.abc import Callable
from dataclasses import dataclass

from deploy.audit.door import Door
from deploy.hostile import cancelling, filling, holding, json_bodies, long_fields, lying, odd
from deploy.hostile.heard import Heard

#: Attacks a door for so many seconds; what came back goes to Heard.
Assault = Callable[[Door, Heard, float], None]


@dataclass(frozen=True)
class Attack:
    """One of them."""

    run: Assault
    by: tuple[str, ...]  #: whose key is used: of a client with queries left, a spent one, nobody's
    stops: str  #: what an unfixed server does, for the operator
    seconds: float = 6  #: that it takes, at least, to hurt most unfixed servers


KEY, SPENT, NOBODY = "key", "spent", "nobody"
_BOTH, _ALL = (KEY, NOBODY), (KEY, SPENT, NOBODY)

ATTACKS: dict[str, Attack] = {
    "deep-json": Attack(json_bodies.deep, (KEY,), "Triton crashes"),
    "huge-shapes": Attack(json_bodies.shapes, (KEY,), "Triton fills its memory and crashes"),
    "long-fields": Attack(long_fields.echoed, (KEY,), "the gateway stands still"),
    "cancelled-deadlines": Attack(cancelling.deadlines, (KEY,), "Triton crashes", 12),
    "cancelled-resets": Attack(cancelling.resets, (KEY,), "Triton crashes", 12),
    "rapid-resets": Attack(cancelling.rapid_resets, _BOTH, "Triton crashes, the gateway is busy"),
    "hang-ups": Attack(cancelling.hang_ups, (KEY,), "Triton crashes", 12),
    "unfinished-streams": Attack(
        filling.unfinished_streams, _ALL, "the gateway's memory fills", 12
    ),
    "unfinished-bodies": Attack(filling.unfinished_bodies, _ALL, "the gateway's memory fills", 12),
    "slow-readers": Attack(filling.slow_readers, (KEY,), "memory fills, of both", 12),
    "silent-tcp": Attack(holding.silent_tcp, (NOBODY,), "nobody else gets in"),
    "half-handshakes": Attack(holding.half_handshakes, (NOBODY,), "nobody else gets in"),
    "idle-tls": Attack(holding.idle_tls, (NOBODY,), "nobody else gets in", 12),
    "half-headers": Attack(holding.half_headers, (NOBODY,), "nobody else gets in", 12),
    "forged-names": Attack(lying.forged_names, _BOTH, "the access log lies"),
    "flood": Attack(lying.flood, (NOBODY,), "the access log fills the disk"),
    "streams": Attack(odd.streams, (KEY,), "clients wait for half a minute"),
    "encodings": Attack(odd.encodings, (KEY,), "clients are told an untrue reason"),
    "not-finite": Attack(odd.not_finite, (KEY,), "inner names come out"),
}
