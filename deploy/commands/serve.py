"""``reverse-sigmoid serve``: Triton, with or without the gateway before it."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from deploy.commands.console import err_console, out_console, say
from deploy.commands.signals import Terminated, heard
from exporters.files.atomic_file import refuse_unwritable
from postprocess.errors import InputError

if TYPE_CHECKING:
    from deploy.gateway.door import GatedTriton
    from deploy.supervision.gateway_probe import GatewayProbe
    from deploy.supervision.supervisor import Supervisor
    from deploy.triton.server import TritonServer


@dataclass(frozen=True, kw_only=True)
class ServeCommand:
    """Serve a model repository with the embedded Triton until Ctrl-C or SIGTERM."""

    repository: Annotated[Path, typer.Argument(metavar="MODEL_REPOSITORY")]
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1"
    http_port: Annotated[int, typer.Option(help="Port of HTTP.")] = 8000
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC.")] = 8001
    metrics_port: Annotated[int, typer.Option(help="Port of Prometheus metrics.")] = 8002
    log: Annotated[Path, typer.Option(help="File that Triton's own log is appended to.")] = Path(
        "triton.log"
    )
    model_control_mode: Annotated[
        str,
        typer.Option(
            metavar="none|poll|explicit",
            help="When an edited config.pbtxt takes effect: at the next start, by itself, or by "
            "a load request, which whoever reaches a port can send.",
        ),
    ] = "poll"
    poll_seconds: Annotated[
        int, typer.Option(min=1, help="How often mode poll looks for edits.")
    ] = 1
    startup_timeout_seconds: Annotated[
        float, typer.Option(min=1, help="How long loading all models may take.")
    ] = 120
    supervise: Annotated[
        bool,
        typer.Option(
            "--supervise/--no-supervise",
            help="Ask every protected ensemble again and again, and bring back what fails.",
        ),
    ] = True
    probe_seconds: Annotated[
        float, typer.Option(min=0.1, help="Time between two such questions.")
    ] = 1
    probe_timeout_seconds: Annotated[
        float, typer.Option(min=0.1, help="How long their answer may take.")
    ] = 3
    max_restarts: Annotated[
        int,
        typer.Option(
            min=0,
            help="Restarts of Triton in 10 minutes, none of which helped, before serve gives "
            "up. A Triton that ran and then died always comes back.",
        ),
    ] = 5
    status_file: Annotated[
        Path | None, typer.Option(help="JSON file that is kept up to date for machines to read.")
    ] = None
    gateway: Annotated[
        Path | None,
        typer.Option(
            metavar="operator.yaml",
            help="Run Envoy in front of Triton, as this file says, and shut off Triton itself.",
        ),
    ] = None
    access_log: Annotated[
        Path | None, typer.Option(help="One JSON line for each request at the gateway.")
    ] = None

    def run(self) -> None:
        behind = self._gated()
        server = self._server(behind)
        with ExitStack() as stack:
            with err_console.status(f"starting Triton, its log is {self.log}"):
                stack.enter_context(server)
                # Not before: it would take the CPU that Triton starts with.
                from deploy.supervision.versions import Versions

                versions = Versions(self.repository)

                def tend() -> None:
                    if behind is not None:
                        behind.tend(server, _report)
                    for line in versions.news():
                        _report(f"BAD VERSION: {line}")

                door = None
                if behind is not None:
                    stack.callback(behind.stop)
                    door = behind.open(server)
                supervisor = self._supervisor(server, behind, tend) if self.supervise else None
                # Nobody comes in before it was seen that answers are protected.
                if door is not None:
                    door.start()
            _say_ready(server, None if behind is None else behind.lines())
            if supervisor is not None:
                watched = ", ".join(supervisor.names) or "no protected model"
                say(f"Asked every {self.probe_seconds:g} s: {watched}")
            say("Ctrl-C stops.")
            if supervisor is None:
                versions.wait()
                tend()
            try:
                if supervisor is not None:
                    supervisor.run()
                server.wait()
            except (KeyboardInterrupt, Terminated):
                heard()
                say("stopping Triton", console=err_console)

    def _gated(self) -> "GatedTriton | None":
        """Return what runs the gateway, None if there is to be none."""
        if self.gateway is None:
            if self.access_log is not None:
                raise InputError("--access-log: the gateway writes it; give --gateway too")
            return None
        if self.access_log is not None:
            refuse_unwritable(self.access_log, "--access-log")
        from deploy.gateway.door import GatedTriton
        from deploy.triton import cancel_guard

        cancel_guard.refuse_missing()
        behind = GatedTriton(self.gateway, access_log=self.access_log)
        behind.refuse(
            self.repository,
            address=self.address,
            control_mode=self.model_control_mode,
            supervise=self.supervise,
        )
        return behind

    def _server(self, behind: "GatedTriton | None") -> "TritonServer":
        from deploy.triton.server import Ports, TritonServer

        return TritonServer(
            self.repository,
            ports=Ports(self.http_port, self.grpc_port, self.metrics_port),
            log=self.log,
            address=self.address,
            control_mode=self.model_control_mode,
            poll_s=self.poll_seconds,
            startup_timeout_s=self.startup_timeout_seconds,
            secret=None if behind is None else behind.secret,
        )

    def _supervisor(
        self, server: "TritonServer", behind: "GatedTriton | None", tend: Callable[[], None]
    ) -> "Supervisor":
        from deploy.supervision.supervisor import Supervisor

        timeout_s = self.probe_timeout_seconds
        return Supervisor(
            server,
            _report,
            probe_s=self.probe_seconds,
            timeout_s=timeout_s,
            max_restarts=self.max_restarts,
            status_file=self.status_file,
            tend=tend,
            gateway=None if behind is None else _probe_of(behind, timeout_s),
            suspects=getattr(behind, "suspects", lambda since: []),
            refuse_opened=getattr(behind, "refuse_raw", lambda configs: None),
        )


def _probe_of(behind: "GatedTriton", timeout_s: float) -> "GatewayProbe":
    """Return what asks through the gateway, with a key that only this run knows."""
    from deploy.supervision.gateway_probe import GatewayProbe, Listener

    def listener() -> Listener:
        operator = behind.operator
        return Listener(operator.models, operator.listen.from_here, operator.tls is not None)

    return GatewayProbe(listener, lambda: behind.pid, behind.probe_key, timeout_s=timeout_s)


def _say_ready(server: "TritonServer", behind: list[str] | None) -> None:
    """Say who listens where, and what is served."""
    from deploy.triton import cancel_guard
    from postprocess import kernel

    say(f"Triton {server.version()} is ready")
    for line in behind or [
        f"  gRPC     {server.grpc_url}",
        f"  HTTP     http://{server.address}:{server.ports.http}",
    ]:
        say(line)
    say(f"  metrics  http://{server.address}:{server.ports.metrics}/metrics")
    table = Table("model", "version", "what it is")
    models = server.models()
    for model in models:
        table.add_row(model.name, model.version, model.summary)
    out_console.print(table)
    if behind is None and any(" -> " in model.summary for model in models):
        say(
            "Whoever reaches these ports can also call the victim behind an ensemble, raw; "
            "--gateway operator.yaml shuts it off."
        )
    if kernel.open_library() is None:
        say(f"WARNING: {kernel.MISSING}", console=err_console)
    if cancel_guard.find() is None:
        say(f"WARNING: {cancel_guard.MISSING}", console=err_console)


def _report(text: str) -> None:
    """Print one line of a long run, with its time, where it can be: serving goes on without."""
    at = datetime.now().astimezone().isoformat(timespec="seconds")
    with suppress(OSError):  # a full disk, a reader that is gone
        say(f"{at} {text}", console=err_console)
