"""The command ``reverse-sigmoid``: thin calls into the packages that own the work."""

import json
import signal
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import postprocess
from deploy.attack_command import attack
from deploy.options import (
    BETA,
    GAMMA,
    MARGIN,
    STEPS,
    Beta,
    Gamma,
    Margin,
    Seed,
    Steps,
    err_console,
    out_console,
    parameters,
    say,
)
from deploy.overhead_command import overhead
from exporters import datasets, model_repository
from postprocess.errors import InputError, ReverseSigmoidError
from postprocess.parameters import CHOICES

# Some versions of Typer bring a click of their own; this is its UsageError in all of them.
UsageError: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    help="Serve a classifier on NVIDIA Triton without handing the model to whoever queries it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        out_console.print(f"reverse-sigmoid {postprocess.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the repository and the report.")] = Path(
        "demo"
    ),
    beta: Beta = BETA,
    gamma: Gamma = GAMMA,
    margin: Margin = MARGIN,
    steps: Steps = STEPS,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier demo.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Train, export, protect, serve and attack a classifier of handwritten digits."""
    from deploy import demo
    from load_tests.report import caption, table_rows

    report = demo.run(
        out,
        parameters(beta, gamma, margin),
        steps=steps,
        seed=seed,
        force=force,
        console=err_console,
    )
    if as_json:
        print(json.dumps(report))
        return
    table = Table("", "unprotected", "protected", title="Reverse Sigmoid, served by Triton")
    for row in table_rows(report):
        table.add_row(*row)
    out_console.print(table)
    say(caption(report))
    repository = out / "model_repository"
    config = repository / model_repository.defence_name(demo.NAME) / "config.pbtxt"
    say(f"\nThe report with its plots is {out / 'report.html'}. Next:")
    say(f"  reverse-sigmoid serve {repository}      # serve it yourself")
    say(f"  ${{EDITOR:-vi}} {config}      # tune beta, gamma and margin")
    say("  reverse-sigmoid export mnist --repository models      # a classifier of your own size")


@app.command()
def export(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help=f"One of {', '.join(datasets.NAMES)}.")
    ],
    *,
    repository: Annotated[Path, typer.Option(help="Model repository to write to.")] = Path(
        "model_repository"
    ),
    name: Annotated[str, typer.Option(help="Public model name.  [default: the data set]")] = "",
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of <name>.npz files, or of STL-10's binary files."),
    ] = None,
    architecture: Annotated[str, typer.Option(help="The victim's network.")] = "simple",
    beta: Beta = BETA,
    gamma: Gamma = GAMMA,
    margin: Margin = MARGIN,
    steps: Steps = STEPS,
    seed: Seed = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Train anew and replace the ONNX file.")
    ] = False,
) -> None:
    """Train a classifier and write it, protected, to a model repository."""
    from deploy.progress import Stages
    from exporters.pipeline import export_classifier

    defence = parameters(beta, gamma, margin)
    public = name or dataset
    onnx = model_repository.onnx_path(repository, public)
    if onnx.exists() and not force:
        raise InputError(f"{onnx} exists; give --force to train anew and replace it")
    config = repository / model_repository.defence_name(public) / "config.pbtxt"
    if config.exists() and (beta, gamma, margin) != (BETA, GAMMA, MARGIN):
        raise InputError(f"{config} exists; set beta, gamma and margin in it")
    loaded = datasets.load(dataset, data_dir)
    exported = export_classifier(
        loaded,
        repository,
        defence,
        name=public,
        architecture=architecture,
        steps=steps,
        seed=seed,
        stage=Stages(err_console, total=3).stage,
    )
    for path in exported.kept:
        say(f"kept as it was: {path}", console=err_console)
    say(
        f"{exported.onnx}: accuracy {exported.accuracy:.4f} on the test set, "
        f"Keras and onnxruntime differ by at most {exported.parity:.1e}"
    )
    say(f"Next: reverse-sigmoid serve {repository}")


@app.command()
def protect(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="A classifier; it is only read.")
    ],
    *,
    repository: Annotated[Path, typer.Option(help="Model repository to write to.")],
    name: Annotated[str, typer.Option(help="Public model name.  [default: the file's stem]")] = "",
    beta: Beta = BETA,
    gamma: Gamma = GAMMA,
    margin: Margin = MARGIN,
    scores: Annotated[
        str, typer.Option(help="What the output holds: logits or probabilities.  [default: found]")
    ] = "",
    multi_label: Annotated[
        bool | None,
        typer.Option(
            "--multi-label/--no-multi-label",
            help="Each score is a yes or no of its own.  [default: found]",
        ),
    ] = None,
    output: Annotated[
        str, typer.Option(help="The output that holds the scores.  [default: found]")
    ] = "",
    max_batch_size: Annotated[
        int | None,
        typer.Option(min=0, help="Most rows of a request, 0 for no batching.  [default: 256]"),
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(help="An .npz file of real rows, by input name.  [default: random input]"),
    ] = None,
    self_contained: Annotated[
        bool, typer.Option("--self-contained", help="Copy the package postprocess along.")
    ] = False,
    layout: Annotated[str, typer.Option(help="Only ensemble so far.")] = "ensemble",
    force: Annotated[bool, typer.Option("--force", help="Replace models of that name.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Write the three models that serve an ONNX classifier of yours, protected."""
    from deploy import protect_summary
    from exporters.classifier import Asked
    from exporters.protect import protect as protect_onnx

    if scores not in ("", *CHOICES["scores"]):
        raise InputError(f"--scores: expected logits or probabilities, got {scores!r}")
    asked = Asked(
        name=name,
        scores=scores,
        multi_label=multi_label,
        output=output,
        max_batch_size=max_batch_size,
        sample=sample,
        self_contained=self_contained,
        layout=layout,
        force=force,
    )
    with err_console.status(f"reading and verifying {model}"):
        done = protect_onnx(model, repository, parameters(beta, gamma, margin), asked)
    for warning in done.classifier.warnings:
        say(f"warning: {warning}", console=err_console)
    if as_json:
        print(json.dumps(protect_summary.as_dict(done)))
        return
    for line in protect_summary.lines(done):
        say(line)


@app.command()
def serve(
    repository: Annotated[Path, typer.Argument(metavar="MODEL_REPOSITORY")],
    *,
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="Port of HTTP.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Port of Prometheus metrics.")] = 8002,
    log: Annotated[Path, typer.Option(help="File that Triton's own log is appended to.")] = Path(
        "triton.log"
    ),
    model_control_mode: Annotated[
        str,
        typer.Option(
            metavar="none|poll|explicit",
            help="When an edited config.pbtxt takes effect: at the next start, by itself, or by "
            "a load request, which whoever reaches a port can send.",
        ),
    ] = "poll",
    poll_seconds: Annotated[
        int, typer.Option(min=1, help="How often mode poll looks for edits.")
    ] = 1,
    startup_timeout_seconds: Annotated[
        float, typer.Option(min=1, help="How long loading all models may take.")
    ] = 120,
    supervise: Annotated[
        bool,
        typer.Option(
            "--supervise/--no-supervise",
            help="Ask every protected ensemble again and again, and bring back what fails.",
        ),
    ] = True,
    probe_seconds: Annotated[
        float, typer.Option(min=0.1, help="Time between two such questions.")
    ] = 1,
    probe_timeout_seconds: Annotated[
        float, typer.Option(min=0.1, help="How long their answer may take.")
    ] = 3,
    max_restarts: Annotated[
        int, typer.Option(min=0, help="Restarts of Triton in 10 minutes before serve gives up.")
    ] = 5,
    status_file: Annotated[
        Path | None, typer.Option(help="JSON file that is kept up to date for machines.")
    ] = None,
) -> None:
    """Serve a model repository with the embedded Triton until Ctrl-C or SIGTERM."""
    from deploy.supervisor import Supervisor
    from deploy.triton_server import Ports, TritonServer

    ports = Ports(http_port, grpc_port, metrics_port)
    server = TritonServer(
        repository,
        ports=ports,
        log=log,
        address=address,
        control_mode=model_control_mode,
        poll_s=poll_seconds,
        startup_timeout_s=startup_timeout_seconds,
    )
    with ExitStack() as stack:
        with err_console.status(f"starting Triton, its log is {log}"):
            stack.enter_context(server)
            supervisor = (
                Supervisor(
                    server,
                    _report,
                    probe_s=probe_seconds,
                    timeout_s=probe_timeout_seconds,
                    max_restarts=max_restarts,
                    status_file=status_file,
                )
                if supervise
                else None
            )
        say(f"Triton {server.version()} is ready")
        say(f"  gRPC     {server.grpc_url}")
        say(f"  HTTP     http://{address}:{ports.http}")
        say(f"  metrics  http://{address}:{ports.metrics}/metrics")
        table = Table("model", "version", "what it is")
        for model in server.models():
            table.add_row(model.name, model.version, model.summary)
        out_console.print(table)
        say("Whoever reaches these ports can also call the victim behind an ensemble, raw.")
        if supervisor is not None:
            say(f"Asked every {probe_seconds:g} s: {', '.join(supervisor.names) or 'no ensemble'}")
        say("Ctrl-C stops.")
        try:
            if supervisor is not None:
                supervisor.run()
            server.wait()
        except (KeyboardInterrupt, Terminated):
            say("stopping Triton", console=err_console)


@app.command()
def check(
    repository: Annotated[Path, typer.Argument(metavar="MODEL_REPOSITORY")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look for what would stop a model repository from loading, leak, or defend badly.

    Exits with 1 if there is an error; warnings do not change the exit code.
    """
    from deploy.check import check as check_repository

    checked = check_repository(repository)
    if as_json:
        print(json.dumps(checked.as_json(), indent=2))
    else:
        for finding in checked.findings:
            say(f"{finding.level:7} {finding.code}: {finding.message}")
        errors = len(checked.errors)
        say(
            f"{repository}: {checked.models} models, {errors} errors, "
            f"{len(checked.findings) - errors} warnings"
        )
    if checked.errors:
        raise typer.Exit(1)


app.command()(attack)
app.command()(overhead)


def run() -> int:
    """Run the command line and return the exit code: 1 with one line for what a person can mend."""
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup wants it ignored
        signal.signal(signal.SIGHUP, _terminate)
    try:
        return int(app(standalone_mode=False) or 0)
    except ReverseSigmoidError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except UsageError as error:
        if not error.format_message():  # nothing was asked for, and the help was shown
            return 2
        message = f"{error.format_message()} (see --help)"
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except Terminated as stop:
        return 128 + stop.number
    say(f"reverse-sigmoid: {message}", console=err_console)
    return 1


class Terminated(BaseException):
    """SIGTERM or SIGHUP, made to unwind like Ctrl-C so that nothing is left behind."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _terminate(number: int, frame: object) -> None:
    raise Terminated(number)


def _report(text: str) -> None:
    """Print one line of a long run, with its time."""
    say(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {text}", console=err_console)
