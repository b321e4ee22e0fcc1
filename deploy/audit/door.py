"""An endpoint as one client sees it, and how to knock."""

import functools
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.audit.target import TIMEOUT_S, Target
from load_tests.asking.address import Address, address
from load_tests.asking.endpoint import API_KEY_HEADER, SERVICE

INFER = f"{SERVICE}/ModelInfer"
#: What asks for no key.
HEALTH, HEALTH_PATH = f"{SERVICE}/ServerReady", "/v2/health/ready"


@dataclass(frozen=True)
class Door:
    """A gateway as one client sees it; it can be sent to another process."""

    http: Address
    grpc: Address  #: the same behind a gateway
    model: str
    ca: Path | None  #: certificates to trust; with it, TLS is spoken
    key: str | None  #: None for nobody
    message: bytes  #: a ModelInferRequest that the model answers
    body: bytes  #: the same question as JSON
    source: str | None = None  #: the address of this machine to come from

    @property
    def path(self) -> str:
        """Where HTTP asks for an answer."""
        return f"/v2/models/{self.model}/infer"

    @property
    def keys(self) -> list[tuple[str, str]]:
        """The headers, of either protocol, that say who asks."""
        return [(API_KEY_HEADER, self.key)] if self.key is not None else []

    def tcp(self, *, receive_bytes: int | None = None, grpc: bool = False) -> socket.socket:
        """Return a TCP connection, with a receive buffer of that size.

        Raises:
            OSError: nobody listens, or the connection was refused.
        """
        where = self.grpc if grpc else self.http
        connection = socket.socket(socket.AF_INET6 if ":" in where.host else socket.AF_INET)
        try:
            if receive_bytes is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            if self.source is not None:
                connection.bind((self.source, 0))
            connection.settimeout(TIMEOUT_S)
            connection.connect((where.host, where.port))
        except BaseException:
            connection.close()
            raise
        return connection

    def connect(self, alpn: str = "http/1.1", *, receive_bytes: int | None = None) -> socket.socket:
        """Return a connection that speaks TLS, if the door does.

        Raises:
            OSError: it was refused, or the handshake failed.
        """
        where = self.grpc if alpn == "h2" else self.http
        connection = self.tcp(receive_bytes=receive_bytes, grpc=alpn == "h2")
        if self.ca is None:
            return connection
        try:
            return _context(self.ca, alpn).wrap_socket(connection, server_hostname=where.host)
        except BaseException:
            connection.close()
            raise

    def channel(self) -> Any:
        """Return a gRPC channel with a connection of its own, by no proxy."""
        import grpc

        options = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", -1),
        ]
        if self.ca is None:
            return grpc.insecure_channel(str(self.grpc), options)
        trusted = grpc.ssl_channel_credentials(self.ca.read_bytes())
        return grpc.secure_channel(str(self.grpc), trusted, options)


def find(target: Target, *, key: str | None, source: str | None = None) -> Door:
    """Return the door to a target of the audit, for a client with this key."""
    where = address(target.http, "--http-url"), address(target.grpc, "--url")
    question = target.message(), target.body()
    return Door(*where, target.public, target.access.tls_ca, key, *question, source)


def told(call: Callable[..., bytes], *asked: Any, **options: Any) -> tuple[str, bytes | str]:
    """Return the status of a gRPC call, and what was answered, or in words why it was not."""
    import grpc

    try:
        return "OK", call(*asked, **options)
    except grpc.RpcError as error:
        return error.code().name, str(error.details())


@functools.lru_cache
def _context(ca: Path, alpn: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    context.set_alpn_protocols([alpn])
    return context
