"""Whether an address can be listened on, said before a server says it in its own way."""

import socket

from postprocess.errors import InputError


def refuse_taken(name: str, host: str, port: int) -> None:
    """Return if something could listen there now.

    Raises:
        InputError: it could not; ``name`` begins the message.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"{name}: cannot listen on {host}:{port}: {reason}") from None
