"""``reverse-sigmoid attack``: what a thief would get from an endpoint of yours."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.commands.options import (
    BETA,
    GAMMA,
    MARGIN,
    STEPS,
    ApiKey,
    Beta,
    Gamma,
    Margin,
    Seed,
    Steps,
    TlsCa,
    command_line,
    counts,
    err_console,
    numbers,
    out_console,
    parameters,
    say,
)
from deploy.commands.progress import Stages
from exporters import architectures, datasets
from exporters.pipeline import Stage
from exporters.quiet_import import import_quietly
from load_tests.stealing.losses import LOSSES
from load_tests.stealing.thief import ATTACKS, RECOVERIES, Thief, suite
from postprocess.errors import InputError

#: Characters that the table takes.
WIDTH = 108
#: Images that an attack may ask about; more are a slip of the hand.
MOST_QUERIES = 999_999_999


def attack(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help=f"{', '.join(ATTACKS)}, or all of them: all.")
    ],
    *,
    url: Annotated[str, typer.Option(help="HOST:PORT of gRPC.")] = "127.0.0.1:8001",
    model: Annotated[str, typer.Option(help="The protected model.")],
    victim: Annotated[
        str,
        typer.Option(
            help="The same model without a defence, where you can ask it: results are then judged "
            "by it, and shown without a defence too. An outsider cannot."
        ),
    ] = "",
    data: Annotated[
        str,
        typer.Option(help=f"The kind of images: {', '.join(datasets.NAMES)}, or an .npz file."),
    ] = "",
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the data sets' files, see export.")
    ] = None,
    queries: Annotated[
        int,
        typer.Option(
            min=0,
            help="Query budget of each attack, in images; needed but with --from-transfer-set.",
            show_default=False,
        ),
    ] = 0,
    budgets: Annotated[
        str,
        typer.Option(
            help="Smaller budgets to judge too, such as 60,120.  [default for all: a quarter "
            "and a half of --queries]"
        ),
    ] = "",
    out: Annotated[Path, typer.Option(help="Folder of the transfer sets and the report.")],
    loss: Annotated[
        str, typer.Option(help=f"What the substitute matches: {', '.join(LOSSES)}.")
    ] = "cross_entropy",
    labels_only: Annotated[
        bool, typer.Option("--labels-only", help="Keep only the answers' top classes.")
    ] = False,
    recover: Annotated[
        str, typer.Option(help=f"Undo the defence first: {', '.join(RECOVERIES)}.")
    ] = "",
    beta: Beta = BETA,
    gamma: Gamma = GAMMA,
    margin: Margin = MARGIN,
    architecture: Annotated[
        str, typer.Option(help=f"The substitute's: {', '.join(architectures.ARCHITECTURES)}.")
    ] = "simple",
    steps: Steps = STEPS,
    seed: Seed = 0,
    split_seed: Annotated[
        int, typer.Option(min=0, help="The seed that export held the adversary's images off by.")
    ] = 0,
    others: Annotated[
        str,
        typer.Option(help="The other images of knockoff: photos (no download) or a data set."),
    ] = "photos",
    batch_size: Annotated[int, typer.Option(min=1, help="Images per request.")] = 64,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 1,
    retries: Annotated[int, typer.Option(min=0, help="Of a request that the server failed.")] = 4,
    timeout_seconds: Annotated[float, typer.Option(min=0.1, help="Of one request.")] = 30,
    api_key: ApiKey = None,
    tls_ca: TlsCa = None,
    from_transfer_set: Annotated[
        Path | None, typer.Option(help="Folder of a transfer set; the attack asks nothing.")
    ] = None,
    price: Annotated[str, typer.Option(help="Dollars for 1,000 queries, from and to.")] = "1,10",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Steal from an endpoint of yours, and report what a thief would get.

    What was paid for is kept in --out: the same command goes on where an earlier one stopped.
    beta, gamma and margin are what adversaries take the defence to be.
    """
    from load_tests.endpoint import Access
    from load_tests.stealing import attack as attacks
    from load_tests.stealing.campaign import CampaignSettings
    from load_tests.stealing.collect import Manner

    if name == "all":
        if loss != "cross_entropy" or labels_only or recover or from_transfer_set is not None:
            raise InputError(
                "attack all: runs every loss and recovery itself; --loss, --labels-only, "
                "--recover and --from-transfer-set go with one attack"
            )
        thieves = suite(with_victim=bool(victim))
    else:
        thieves = [Thief(attack=name, loss=loss, labels_only=labels_only, recover=recover)]
    known = parameters(beta, gamma, margin)
    settings = CampaignSettings(
        url=url,
        model=model,
        victim=victim,
        data=data,
        queries=queries,
        split_seed=split_seed,
        seed=seed,
        architecture=architecture,
        steps=steps,
        others=others,
        beta=known.beta or 0,
        gamma=known.gamma or 0,
        margin=known.margin,
    )
    low, high = numbers(price, option="--price", least=0, count=2)
    report = attacks.run(
        out,
        thieves,
        settings,
        budgets=list(counts(budgets, "--budgets", MOST_QUERIES)) if budgets else [],
        manner=Manner(batch_size=batch_size, concurrency=concurrency, retries=retries),
        access=Access(api_key, tls_ca),
        timeout_s=timeout_seconds,
        data_dir=data_dir,
        from_transfer_set=from_transfer_set,
        prices=(low, high),
        command=command_line(),
        stages=_stages,
        say=lambda text: say(text, console=err_console),
    )
    if as_json:
        print(json.dumps(report))
    else:
        _show(report, out)


def _stages(total: int) -> Stage:
    with err_console.status("loading TensorFlow"):
        import_quietly("keras", "tensorflow")
    return Stages(err_console, total).stage


def _show(report: dict[str, Any], out: Path) -> None:
    from load_tests.stealing.report import HEAD, caption, summary_lines, table_rows

    table = Table(*HEAD, title="What a thief gets")
    for row in table_rows(report["results"]):
        table.add_row(*row)
    # Names that a narrow terminal would cut off are worth a broken line.
    Console(width=max(out_console.width, WIDTH)).print(table)
    for line in (caption(report), "", *summary_lines(report), ""):
        say(line)
    say(f"The report with its curves is {out / 'report.html'}.")
