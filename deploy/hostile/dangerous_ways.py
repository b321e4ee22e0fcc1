"""Every attack as a way of the audit, beside an honest client: ``audit --dangerous``."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from deploy.audit.door import Door
from deploy.audit.way import Way
from deploy.hostile import honest
from deploy.hostile.attacker import Attacker
from deploy.hostile.attacks import ATTACKS, KEY, NOBODY, Attack
from deploy.hostile.heard import Secrets
from deploy.hostile.holding import HELD
from load_tests.timing.paced import Paced
from postprocess.errors import InputError

#: Honest requests a second, half of them over new connections.
RATE = 8.0
#: The longest that an honest client may wait.
WORST_S = 2.0
#: How long a server may take to answer again, before the next attack.
RECOVERY_S = 60.0
#: What a client with the attacker's own key may well be told.
_BOUNDED = ("gRPC RESOURCE_EXHAUSTED", "HTTP 429")
#: And one with the attacker's own address, who has the connections that it may have.
_NOT_LET_IN = "HTTP 0"
#: More connections than this are no bound for one address.
_MOST_HELD = 512

WARNING = (
    "--dangerous attacks {url} for about {minutes:.1f} minutes, with this key and without one: a "
    "server that is not mended crashes, stands still or fills its memory, others are not "
    "answered meanwhile, and the key's queries are spent. Only on a server of your own, and "
    "not while others need it."
)


def chosen(names: Sequence[str]) -> dict[str, Attack]:
    """Return the attacks of these names, all of them where none is said.

    Raises:
        InputError: there is no attack of one of the names.
    """
    for name in names:
        if name not in ATTACKS:
            raise InputError(f"--attack: expected one of {', '.join(ATTACKS)}, got {name!r}")
    return {name: ATTACKS[name] for name in names or ATTACKS}


def minutes(attacks: Mapping[str, Attack]) -> float:
    """Return about how long they take."""
    return sum(len(_by(one)) * (one.seconds + 3) for one in attacks.values()) / 60


def ways(door: Door, inner: Sequence[str], attacks: Mapping[str, Attack]) -> Iterator[Way]:
    """Return each attack with whoever makes it."""
    for name, attack in attacks.items():
        for by in _by(attack):
            doer = door if by == KEY else replace(door, key=None)
            run = partial(_attack, door, inner, name, doer)
            yield Way(f"attack {name} by {by}: {attack.stops}", run)


def _by(attack: Attack) -> list[str]:
    """Return who makes it: a spent key is not at hand."""
    return [by for by in attack.by if by in (KEY, NOBODY)]


def _attack(door: Door, inner: Sequence[str], name: str, doer: Door) -> str | None:
    """Return how an attack hurt, None if it did not."""
    try:
        expected = honest.over_grpc(door)()
    except honest.NotAnsweredError as error:
        return f"not attacked, as no honest question is answered: {error}"
    both = (honest.over_grpc, honest.over_http)
    clients = [partial(honest.client, door, over, expected) for over in both]
    secrets = Secrets((*inner, "victim_scores"))
    attacker = Attacker([(name, doer)], secrets, ATTACKS[name].seconds)
    with Paced(clients, rate=RATE) as paced, attacker:
        attacker.wait()
        time.sleep(1)  # what was begun may hurt a moment later
    (report,) = attacker.reports
    held = [int(one.split()[0]) for one in report["answers"] if one.endswith(HELD)]
    bounded = (*_BOUNDED, _NOT_LET_IN) if held else _BOUNDED
    failed = {said: one for said, one in paced.failures.items() if not said.startswith(bounded)}
    worst = max((ms for one in paced.latencies_ms for ms in one), default=0.0) / 1000
    recovered = _answers_again(door)
    if recovered is None:
        return f"does not answer within {RECOVERY_S:g} s after it"
    if failed:
        said, count = next(iter(failed.items()))
        return f"{count} honest requests failed: {' '.join(said.split())[:80]}"
    if worst > WORST_S:
        return f"an honest client waited {worst:.1f} s"
    if held and max(held) > _MOST_HELD:
        return f"{max(held)} connections of one address were held at once"
    return f"came out: {', '.join(report['leaks'])}" if report["leaks"] else None


def _answers_again(door: Door) -> float | None:
    """Return how long it took until an honest question was answered, None if it was not."""
    began, ask = time.monotonic(), honest.over_http(door)
    while (took := time.monotonic() - began) < RECOVERY_S:
        try:
            ask()
        except honest.NotAnsweredError as error:
            if str(error).startswith(_BOUNDED):
                return took
            time.sleep(0.5)
        else:
            return took
    return None
