"""Ways past the gateway: the ports of Triton and of Envoy's admin interface."""

import contextlib
import http.client
from collections.abc import Iterable, Iterator

from deploy.audit.door import Door
from deploy.audit.way import Way

#: Triton's own three, and the usual ports of Envoy's admin interface.
PORTS = (8000, 8001, 8002, 9901, 19000, 15000)
_TIMEOUT_S = 3.0


def ways(door: Door, ports: Iterable[int]) -> Iterator[Way]:
    """Return a way for each port of the door's host that is not the audited one."""
    host = door.grpc.host
    for port in dict.fromkeys(ports):
        if port not in (door.grpc.port, door.http.port):
            yield Way(f"port {port}", lambda port=port: _look(host, port))  # type: ignore[misc]


def _look(host: str, port: int) -> str | None:
    """Return what Triton or Envoy answers there, None if neither does."""
    for path in ("/v2/health/live", "/v2", "/metrics", "/server_info", "/stats"):
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
            with contextlib.closing(connection):
                connection.request("GET", path)
                response = connection.getresponse()
                said = response.read(2048).decode(errors="replace")
                if response.status == 200:
                    return f"GET {path}: 200 {' '.join(said.split())[:60]}"
                if "triton-key" in said:
                    return f"GET {path}: Triton itself, though it demands a key"
    return None
