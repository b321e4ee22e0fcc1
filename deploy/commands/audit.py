"""``reverse-sigmoid audit``: is the protected model the only one to be had?"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from deploy.commands import asking, options
from deploy.commands.console import err_console, out_console, say
from postprocess.errors import InputError

if TYPE_CHECKING:
    from deploy.audit.matrix import Holder
    from deploy.audit.target import Target
    from deploy.audit.way import Outcome, Way
    from deploy.hostile.attacks import Attack


@dataclass(frozen=True, kw_only=True)
class AuditCommand:
    """Try from the outside every way round the defence that is known.

    Nothing on the server is changed, and without --dangerous nothing is sent that could hurt it.
    Exits with 1 if a way is open, or if what clients need does not work.
    """

    url: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where clients connect.")]
    public: Annotated[str, typer.Option(metavar="MODEL", help="The protected model.")]
    http_url: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Where clients of HTTP connect, if elsewhere.",
            show_default="--url",
        ),
    ] = ""
    inner: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="A model behind it; those that protect names and that the server tells of are "
            "tried anyway.",
        ),
    ] = None
    port: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=65535,
            help="Another port of the host that must not answer; Triton's and Envoy's usual ones "
            "are tried anyway.",
        ),
    ] = None
    gateway: Annotated[
        Path | None,
        typer.Option(
            metavar="operator.yaml",
            help="Try every client of this file too, with its key, on every model: what its list "
            "names has to answer, all else to be closed. Each model that is closed to it costs it "
            "some 30 queries.",
        ),
    ] = None
    api_key: asking.ApiKey = None
    tls_ca: asking.TlsCa = None
    as_json: options.AsJson = False
    dangerous: Annotated[
        bool,
        typer.Option(
            "--dangerous",
            help="Attack it too, for some minutes, beside an honest client: an unpatched server "
            "crashes. Only where nobody else needs it.",
        ),
    ] = False
    attack: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="With --dangerous, this attack.", show_default="all"),
    ] = None
    every: Annotated[
        bool, typer.Option("--all", help="Show the closed ways too, not only how many they are.")
    ] = False

    def run(self) -> None:
        from deploy.audit import matrix, target
        from deploy.audit.way import walk
        from deploy.hostile import dangerous_ways
        from load_tests.asking.address import address
        from load_tests.asking.endpoint import Access

        http_url = self.http_url or self.url
        for name, value in (("--url", self.url), ("--http-url", http_url)):
            address(value, name)
        attacks = dangerous_ways.chosen(self.attack or [])
        if self.attack and not self.dangerous:
            raise InputError("--attack: would crash an unpatched server; give --dangerous too")
        holders = self._holders()
        keys = [one.key for one in holders.values() if self.public in one.models]
        access = Access(self.api_key or next(iter(keys), None), self.tls_ca)
        audited = target.find(self.url, http_url, self.public, access, inner=self.inner or [])
        ways = self._ways(audited, attacks)

        def found(model: str, access: Access) -> target.Target:
            return target.find(self.url, http_url, model, access)

        outcomes = walk([*ways, *matrix.ways(holders, found, access)])
        verdicts = [one.verdict for one in outcomes]
        report = {
            "url": self.url,
            "public": self.public,
            "inner": list(audited.inner),
            "ways": [
                {"way": one.way, "verdict": one.verdict, "evidence": one.evidence}
                for one in outcomes
            ],
            "open": verdicts.count("OPEN"),
            "failing": verdicts.count("FAILS"),
            "spent": verdicts.count("SPENT"),
        }
        bad = [one for one in outcomes if not one.good]
        if self.as_json:
            print(json.dumps(report, indent=2))
        else:
            _show(report, outcomes if self.every else bad)
        if bad:
            raise typer.Exit(1)

    def _holders(self) -> "dict[str, Holder]":
        """Return who has which key, as the operator's file says."""
        from deploy.audit.matrix import Holder
        from deploy.gateway.operator_file import read

        if self.gateway is None:
            return {}
        clients = read(self.gateway).clients
        return {one.name: Holder(one.key, one.models) for one in clients}

    def _ways(self, audited: "Target", attacks: dict[str, "Attack"]) -> list["Way"]:
        """Return all that is tried, having warned of what is dangerous."""
        from deploy.audit import door, grpc_ways, http_ways, port_ways
        from deploy.hostile import dangerous_ways, gentle_ways

        client = door.find(audited, key=audited.access.api_key)
        ways = [
            *grpc_ways.ways(client, audited.inner),
            *http_ways.ways(client, audited.inner),
            *grpc_ways.key_ways(client),
            *http_ways.key_ways(client),
            *port_ways.ways(client, [*(self.port or []), *port_ways.PORTS]),
            *gentle_ways.ways(client, audited.inner),
        ]
        if self.dangerous:
            minutes = dangerous_ways.minutes(attacks)
            warning = dangerous_ways.WARNING.format(url=self.url, minutes=minutes)
            say(warning, console=err_console)
            ways += dangerous_ways.ways(client, audited.inner, attacks)
        return ways


def _show(report: dict[str, Any], outcomes: list["Outcome"]) -> None:
    table = Table("way", "", "what came back")
    for one in outcomes:
        table.add_row(one.way, one.verdict, one.evidence or "")
    if table.row_count:
        out_console.print(table)
    say(
        f"{report['url']}, {report['public']}: {len(report['ways'])} ways tried, "
        f"{report['open']} open, {report['failing']} calls that should work fail"
    )
    if report["spent"]:
        say(
            f"{report['spent']} were not tried: the key's budget or rate is spent. Give the audit "
            "a key without a budget"
        )
