"""``reverse-sigmoid attack``: what a thief would get from an endpoint of yours."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from deploy.commands import asking, options
from deploy.commands.console import command_line, err_console, say, show
from deploy.commands.needs import refuse_missing
from deploy.commands.progress import stages
from exporters.quiet_import import import_quietly
from load_tests.stealing.attacks.registry import ATTACKS
from load_tests.stealing.learning.learn import LEARNERS
from load_tests.stealing.losses import LOSSES
from load_tests.stealing.recovery.recover import RECOVERIES
from load_tests.stealing.thief import Thief, suite
from postprocess.errors import InputError

if TYPE_CHECKING:
    from exporters.pipeline import Stage
    from load_tests.stealing.campaign import CampaignSettings

#: Characters that the table takes, thieves of long names too.
WIDTH = 116
#: Trainings at a time, unless asked otherwise: each takes half a GiB of memory or more.
JOBS = 8
#: Images that an attack may ask about; more are a slip of the hand.
MOST_QUERIES = 999_999_999


@dataclass(frozen=True, kw_only=True)
class AttackCommand:
    """Steal from an endpoint of yours, and report what a thief would get.

    What was paid for is kept in --out: the same command resumes where an earlier one stopped.
    beta, gamma and margin are what adversaries take the defence to be.
    """

    name: Annotated[
        str, typer.Argument(metavar="NAME", help=f"{', '.join(ATTACKS)}, or all of them: all.")
    ]
    url: Annotated[str, typer.Option(help="HOST:PORT of gRPC.")] = "127.0.0.1:8001"
    model: options.PublicModel
    victim: Annotated[
        str,
        typer.Option(
            help="The same model without a defence, where you can ask it: results are then judged "
            "by it, and shown without a defence too. An outsider cannot ask it."
        ),
    ] = ""
    output: asking.Output = ""
    data: asking.DataKind = ""
    data_dir: asking.DataDir = None
    query_set: asking.OwnRows = ""
    test_set: asking.OwnTestRows = ""
    queries: Annotated[
        int,
        typer.Option(
            min=0,
            help="Query budget of each attack, in rows; required, except with --from-transfer-set.",
            show_default=False,
        ),
    ] = 0
    budgets: Annotated[
        str,
        typer.Option(
            help="Smaller budgets to judge too, such as 60,120.",
            show_default="for all, a quarter and a half of --queries",
        ),
    ] = ""
    out: Annotated[Path, typer.Option(help="Folder of the transfer sets and the report.")]
    loss: Annotated[
        str, typer.Option(help=f"What the substitute matches: {', '.join(LOSSES)}.")
    ] = "cross_entropy"
    labels_only: Annotated[
        bool, typer.Option("--labels-only", help="Keep only the answers' top classes.")
    ] = False
    recover: Annotated[
        str, typer.Option(help=f"Undo the defence first: {', '.join(RECOVERIES)}.")
    ] = ""
    learn: Annotated[
        str, typer.Option(help=f"Make more of the answers: {', '.join(LEARNERS)}.")
    ] = ""
    beta: options.Beta = options.BETA
    gamma: options.Gamma = options.GAMMA
    margin: options.Margin = options.MARGIN
    calibration: Annotated[
        str,
        typer.Option(
            metavar="calibration-*.json",
            help="The table of an endpoint that answers with calibrated levels, from its model's "
            "folder: adversaries know it in place of beta, gamma and margin.",
            show_default=False,
        ),
    ] = ""
    architecture: asking.SubstituteNetwork = ""
    steps: options.Steps = options.STEPS
    seed: options.Seed = 0
    split_seed: asking.SplitSeed = 0
    others: Annotated[
        str,
        typer.Option(help="The other rows of knockoff: photos (no download) or a data set."),
    ] = "photos"
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per request.")] = 64
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 1
    retries: Annotated[
        int, typer.Option(min=0, help="How often a request that the server failed is sent again.")
    ] = 4
    timeout_seconds: Annotated[
        float, typer.Option(min=0.1, help="How long the answer to one request may take.")
    ] = 30
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=128,
            help="Trainings at a time, each with its share of the processors.",
            show_default=f"for all, one for each processor, up to {JOBS}; else 1",
        ),
    ] = None
    api_key: asking.ApiKey = None
    tls_ca: asking.TlsCa = None
    from_transfer_set: Annotated[
        Path | None, typer.Option(help="Folder of a transfer set to judge; nothing is asked.")
    ] = None
    price: Annotated[str, typer.Option(help="Price of 1,000 queries in dollars, from and to.")] = (
        "1,10"
    )
    as_json: options.AsJson = False

    def run(self) -> None:
        from load_tests.asking.address import address
        from load_tests.asking.endpoint import Access
        from load_tests.runs.conditions import Conditions
        from load_tests.stealing import attack
        from load_tests.stealing.collect import Manner
        from load_tests.stealing.crew import Share

        refuse_missing("matplotlib")  # of the report; queries are paid for before it is drawn
        if self.from_transfer_set is None:
            address(self.url, "--url")
        thieves, settings = self._thieves(), self._settings()
        low, high = options.numbers(self.price, option="--price", least=0, count=2)
        if low > high:
            raise InputError(f"--price: expected the lower price first, got {self.price!r}")
        budgets = options.counts(self.budgets, "--budgets", MOST_QUERIES) if self.budgets else ()
        manner = Manner(
            batch_size=self.batch_size, concurrency=self.concurrency, retries=self.retries
        )
        jobs = self.jobs or (min(JOBS, len(os.sched_getaffinity(0))) if len(thieves) > 1 else 1)
        conditions = Conditions.here(jobs=jobs)
        os.environ |= conditions.environment()  # this process trains too, between questions
        report = self._hinting(
            attack.run,
            self.out,
            thieves,
            settings,
            budgets=list(budgets),
            manner=manner,
            access=Access(self.api_key, self.tls_ca),
            timeout_s=self.timeout_seconds,
            data_dir=self.data_dir,
            from_transfer_set=self.from_transfer_set,
            prices=(low, high),
            command=command_line(),
            share=Share(jobs, conditions.threads),
            stages=_stages,
            say=lambda text: say(text, console=err_console),
        )
        if self.as_json:
            print(json.dumps(report))
        else:
            _show(report, self.out)

    def _hinting(self, run: Callable[..., dict[str, Any]], *given: Any, **named: Any) -> Any:
        """Call it; where a model takes fewer rows, its refusal names the option."""
        from load_tests.asking.endpoint import EndpointError

        try:
            return run(*given, **named)
        except EndpointError as error:
            most = re.search(r"batch-size must be <= ([0-9]+)", str(error))
            if most is None:
                raise
            raise EndpointError(f"{error}; give --batch-size {most[1]}", error.status) from None

    def _thieves(self) -> list[Thief]:
        if self.name != "all":
            return [options.settings(Thief, self, attack=self.name, unprotected=False)]
        of_one = self.loss != "cross_entropy" or self.labels_only or self.recover or self.learn
        if of_one or self.from_transfer_set is not None:
            raise InputError(
                "attack all: runs every loss and recovery itself; --loss, --labels-only, "
                "--recover, --learn and --from-transfer-set go with one attack"
            )
        return suite(with_victim=bool(self.victim), with_table=bool(self.calibration))

    def _settings(self) -> "CampaignSettings":
        """Return what decides the results."""
        from load_tests.data.query_sets import absolute
        from load_tests.stealing import known_table
        from load_tests.stealing.campaign import CampaignSettings

        known = options.parameters(self.beta, self.gamma, self.margin)
        defence = {"beta": known.beta or 0, "gamma": known.gamma or 0, "margin": known.margin}
        names = ("query_set", "test_set", "calibration")
        files = {name: absolute(getattr(self, name)) for name in names}
        table = known_table.read(files["calibration"])
        digests = {"rows": "", "test_rows": "", "table": table.file_name if table else ""}
        return options.settings(CampaignSettings, self, **defence, **files, **digests)


def _stages(total: int) -> "Stage":
    with err_console.status("loading TensorFlow"):
        import_quietly("keras", "tensorflow")
    return stages(total)


def _show(report: dict[str, Any], out: Path) -> None:
    from load_tests.stealing.report import HEAD, caption, summary_lines, table_rows

    table = Table(*HEAD, title="What a thief gets")
    for row in table_rows(report["results"]):
        table.add_row(*row)
    show(table, width=WIDTH)
    for line in (caption(report), "", *summary_lines(report), ""):
        say(line)
    say(f"The report with its curves is {out / 'report.html'}.")
