"""The command ``reverse-sigmoid audit``: is the protected model the only one to be had?"""

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from deploy.commands.options import ApiKey, TlsCa, err_console, out_console, say


def audit(
    *,
    url: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where clients connect.")],
    public: Annotated[str, typer.Option(metavar="MODEL", help="The protected model.")],
    http_url: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Of HTTP, if it is another.  [default: --url]"),
    ] = "",
    inner: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="A model behind it; those that protect names and that the server tells of are "
            "tried anyway.",
        ),
    ] = None,
    port: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=65535,
            help="Another port of the host that must not answer; Triton's and Envoy's usual ones "
            "are tried anyway.",
        ),
    ] = None,
    api_key: ApiKey = None,
    tls_ca: TlsCa = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
    dangerous: Annotated[
        bool,
        typer.Option(
            "--dangerous",
            help="Attack it too, for some minutes, beside an honest client: a server that is not "
            "mended crashes. Only where nobody else needs it.",
        ),
    ] = False,
    attack: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="With --dangerous, this attack.  [default: all]"),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Show what is closed too, not only their number.")
    ] = False,
) -> None:
    """Try from the outside every way round the defence that is known.

    Nothing on the server is changed, and without --dangerous nothing is sent that could hurt it.
    Exits with 1 if a way is open, or if what clients need does not work.
    """
    from deploy.audit import grpc_ways, http_ways, port_ways, target
    from deploy.audit.way import walk
    from deploy.gateway.operator_file import address
    from deploy.hostile import dangerous_ways, door, gentle_ways
    from load_tests.endpoint import Access
    from postprocess.errors import InputError

    for name, value in (("--url", url), ("--http-url", http_url or url)):
        address(value, name)
    audited = target.find(url, http_url or url, public, Access(api_key, tls_ca), inner=inner or [])
    attacks = dangerous_ways.chosen(attack or [])
    if attack and not dangerous:
        raise InputError("--attack: hurts a server that is not mended; say --dangerous too")
    client = door.find(audited, key=api_key)
    ways = [
        *grpc_ways.ways(audited),
        *http_ways.ways(audited),
        *grpc_ways.key_ways(audited),
        *http_ways.key_ways(audited),
        *port_ways.ways(audited, [*(port or []), *port_ways.PORTS]),
        *gentle_ways.ways(audited, client),
    ]
    if dangerous:
        minutes = dangerous_ways.minutes(attacks)
        warning = dangerous_ways.WARNING.format(url=url, minutes=minutes)
        say(warning, console=err_console)
        ways += dangerous_ways.ways(audited, client, attacks)
    outcomes = walk(ways)
    bad = [one for one in outcomes if not one.good]
    if as_json:
        print(json.dumps(_as_json(url, public, audited.inner, outcomes), indent=2))
    else:
        table = Table("way", "", "what came back")
        for one in outcomes if every else bad:
            table.add_row(one.way, one.verdict, one.evidence or "")
        if table.row_count:
            out_console.print(table)
        say(
            f"{url}, {public}: {len(outcomes)} ways tried, "
            f"{sum(one.verdict == 'OPEN' for one in outcomes)} open, "
            f"{sum(one.verdict == 'FAILS' for one in outcomes)} calls that should work fail"
        )
    if bad:
        raise typer.Exit(1)


def _as_json(url: str, public: str, inner: tuple[str, ...], outcomes: list[Any]) -> dict[str, Any]:
    return {
        "url": url,
        "public": public,
        "inner": list(inner),
        "ways": [
            {"way": one.way, "verdict": one.verdict, "evidence": one.evidence} for one in outcomes
        ],
        "open": sum(one.verdict == "OPEN" for one in outcomes),
        "failing": sum(one.verdict == "FAILS" for one in outcomes),
    }
