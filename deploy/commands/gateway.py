"""``reverse-sigmoid gateway``: what Envoy needs, where it runs by itself."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from deploy.commands import options
from deploy.commands.console import say
from exporters.files.atomic_file import write_text
from postprocess.errors import InputError

#: In the folder that it writes: our module for Envoy, and what clients have spent.
_LIBRARY = "bounds.so"
_SPENT = "spent"
#: The fewest characters of the secret that Triton demands; we make 64.
_KEY_LENGTH = 32


@dataclass(frozen=True, kw_only=True)
class GatewayCommand:
    """Write Envoy's configuration, checked by Envoy itself, and what Prometheus and Redis need.

    The secret that Triton has to demand is made once, in OUT/triton.key, and kept.
    """

    operator_file: Annotated[Path, typer.Argument(metavar="operator.yaml")]
    out: Annotated[Path, typer.Option(help="Folder for Envoy's files; they hold every key.")]
    triton_grpc: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Triton's gRPC, as Envoy sees it.")
    ] = "127.0.0.1:8001"
    triton_http: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Triton's HTTP, as Envoy sees it.")
    ] = "127.0.0.1:8000"
    seen_at: Annotated[
        Path | None,
        typer.Option(help="Where Envoy finds that folder, in a container.", show_default="--out"),
    ] = None
    socket_folder: Annotated[
        Path | None,
        typer.Option(help="Where Envoy may create its admin socket.", show_default="its folder"),
    ] = None
    budgets_folder: Annotated[
        Path | None,
        typer.Option(
            help="Where Envoy may keep what was spent, through restarts.",
            show_default="its folder's budgets",
        ),
    ] = None
    inner: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="An inner model or tensor, never named to clients."),
    ] = None
    force: options.Force = False

    def run(self) -> None:
        import yaml

        from deploy.gateway.envoy.bootstrap import Upstream
        from deploy.gateway.envoy.bounds import Module, installed
        from deploy.gateway.models import raw_access
        from deploy.gateway.operator_file import read
        from deploy.gateway.process import validate, write_configuration, write_private
        from deploy.gateway.rules import budget_rules, shared_budgets
        from load_tests.asking.address import address

        operator = read(self.operator_file)
        configuration = self.out / "envoy.yaml"
        if configuration.exists() and not self.force:
            raise InputError(f"{configuration} exists; give --force to replace it")
        self.out.mkdir(parents=True, exist_ok=True)
        key_file = self.out / "triton.key"
        if not key_file.exists():
            write_private(key_file, secrets.token_hex(32).encode())
        upstream = Upstream(
            address(self.triton_grpc, "--triton-grpc"),
            address(self.triton_http, "--triton-http"),
            self.inner or (),
        )
        secret = key_file.read_text(errors="replace").strip()
        if len(secret) < _KEY_LENGTH or not (secret.isascii() and secret.isalnum()):
            raise InputError(
                f"{key_file}: expected at least {_KEY_LENGTH} letters and digits, got "
                f"{len(secret)} characters, as where a disk was full; remove it, and a new one is "
                "made, which Triton has to be given"
            )
        write_private(self.out / _LIBRARY, installed().read_bytes())
        (self.out / "budgets").mkdir(mode=0o700, exist_ok=True)
        # Checked where it is written, then written for where it will be read.
        here = Module(self.out / _LIBRARY, self.out / "budgets" / _SPENT)
        validate(write_configuration(operator, upstream, secret, self.out, module=here))
        seen = self.seen_at or self.out
        there = Module(seen / _LIBRARY, (self.budgets_folder or seen / "budgets") / _SPENT)
        write_configuration(
            *(operator, upstream, secret, self.out),
            seen_at=self.seen_at,
            socket_folder=self.socket_folder,
            module=there,
        )
        for name, content in (
            ("budget_alerts.yaml", budget_rules(operator)),
            ("ratelimit.yaml", shared_budgets(operator)),
        ):
            write_text(self.out / name, yaml.safe_dump(content, sort_keys=False, width=1000))
        opened = ", ".join((*operator.models, *operator.raw_models))
        say(f"{configuration}: Envoy takes it; models {opened}")
        for line in raw_access(operator):
            say(line)
        say(f"{key_file}: give it to Triton, see deploy/README.md")
