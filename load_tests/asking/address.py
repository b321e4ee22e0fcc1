"""Where somebody listens, as people write it: HOST:PORT."""

import ipaddress
from dataclasses import dataclass
from typing import Any

from postprocess.errors import InputError


@dataclass(frozen=True)
class Address:
    """Where to listen, or whom to connect to."""

    host: str  #: without the brackets of IPv6
    port: int

    @property
    def from_here(self) -> tuple[str, int]:
        """Where this machine reaches what listens there: every address is loopback too."""
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
        return everywhere.get(self.host, self.host), self.port

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(text: Any, where: str) -> Address:
    """Return what HOST:PORT says, ``[HOST]:PORT`` for IPv6.

    Raises:
        InputError: it is not that; ``where`` begins the message.
    """
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"{where}: expected HOST:PORT, got {text!r}")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if (not _is_ip(bare)) if bare != host else ":" in host:
        raise InputError(f"{where}: expected HOST:PORT, [ADDRESS]:PORT for IPv6, got {text!r}")
    return Address(bare, int(port))


def own_address(text: Any, where: str) -> Address:
    """Return where this machine is to listen: an IP address and a port, or ``localhost`` and one.

    Raises:
        InputError: it is not that; ``where`` begins the message.
    """
    said = address(text, where)
    if said.host == "localhost":
        return Address("127.0.0.1", said.port)
    if not _is_ip(said.host):
        raise InputError(
            f"{where}: expected an IP address of this machine or localhost, got {text!r}; "
            "0.0.0.0 is all of them"
        )
    return said


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host
