"""Whether an address can be listened on, and whether a server listens there."""

import socket

from postprocess.errors import InputError


def refuse_taken(name: str, host: str, port: int) -> None:
    """Refuse an address that nothing could listen on now.

    Raises:
        InputError: why not; ``name`` begins the message.
    """
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{name}: cannot listen on {shown}: {reason}") from None


def listens(host: str, port: int) -> bool:
    """Return whether a server takes connections there within a second."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
