"""Requests of nobody that write what they like into the gateway's access log, or fill it."""

import contextlib

from deploy.audit.door import Door
from deploy.audit.http1 import Broken, head, request
from deploy.hostile.crowd import crowd, turns
from deploy.hostile.heard import Heard
from deploy.hostile.wire import hear
from load_tests.asking.endpoint import API_KEY_HEADER

#: Nobody's name: where it stands in a log, a client has written it there.
FORGED = "forged-by-nobody"
#: Requests that go out before an answer is read.
_AT_ONCE = 100


def forged_names(door: Door, heard: Heard, seconds: float) -> None:
    """Send x-client-id and its kin, with the door's key, a wrong one and none."""
    names = ("x-client-id", "X-Client-Id", "x-client-id ", "x_client_id", "x-forwarded-client-id")
    for turn in turns(seconds):
        name = names[turn % len(names)]
        for raw in (
            head(door, {name: FORGED, "content-length": "0"}),
            head(door, {name: FORGED, API_KEY_HEADER: "x" * 32, "content-length": "0"}),
            head(door, {name: FORGED}, method="GET", path="/v2/health/live"),
            head(door, {name: FORGED}, method="GET", path="/nothing"),
            request(door, door.body, {name: FORGED}),
        ):
            hear(door, raw, heard)


def flood(door: Door, heard: Heard, seconds: float) -> None:
    """Send small requests one after the other without waiting for answers."""
    path = "/v2/models/" + "long" * 500
    opening = head(door, {"content-length": "0", "user-agent": "long" * 500}, path=path)
    many = opening * _AT_ONCE

    def client(_: int) -> None:
        for _ in turns(seconds):
            with contextlib.suppress(*Broken), door.connect() as connection:
                for _ in turns(seconds):
                    connection.sendall(many)
                    said, answered = b"", 0
                    while answered < _AT_ONCE:
                        said = connection.recv(2**20)
                        if not said:
                            break
                        answered += said.count(b"HTTP/1.1 ")
                    heard.answer(f"{answered} answers", said[:2000])

    crowd(2, client)
