"""The command ``reverse-sigmoid``: thin calls into the packages that own the work."""

import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import postprocess
from deploy.commands.attack import attack
from deploy.commands.audit import audit
from deploy.commands.benchmark import benchmark
from deploy.commands.gateway import gateway
from deploy.commands.options import (
    BETA,
    GAMMA,
    MARGIN,
    STEPS,
    Beta,
    Gamma,
    Margin,
    MaxClientBatch,
    Seed,
    Steps,
    err_console,
    out_console,
    parameters,
    say,
)
from deploy.commands.overhead import overhead
from deploy.commands.paper import paper
from deploy.commands.retune import retune
from deploy.commands.serve import serve
from deploy.commands.signals import Terminated, install
from deploy.commands.tune import tune
from exporters import datasets, model_repository
from postprocess.errors import InputError, ReverseSigmoidError
from postprocess.parameters import CHOICES

# Some versions of Typer bring a click of their own; this is its UsageError in all of them.
UsageError: Any = typer.BadParameter.__mro__[1]

#: Commands that keep what they have done.
_RESUMED = {"attack", "paper", "tune"}
_INTERRUPTED = 128 + signal.SIGINT

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
    from deploy.commands import demo
    from deploy.commands.demo_report import caption, table_rows

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
    max_client_batch: MaxClientBatch = None,
    force: Annotated[
        bool, typer.Option("--force", help="Train anew and replace the ONNX file.")
    ] = False,
) -> None:
    """Train a classifier and write it, protected, to a model repository."""
    from deploy.commands.progress import Stages
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
        max_client_batch=max_client_batch,
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
    class_axis: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Axis of the scores that holds the classes, 0 the batch.  "
            "[default: the last, where that is clear]",
        ),
    ] = None,
    output: Annotated[
        str, typer.Option(help="The output that holds the scores.  [default: found]")
    ] = "",
    max_batch_size: Annotated[
        int | None,
        typer.Option(min=0, help="Most rows of a request, 0 for no batching.  [default: 256]"),
    ] = None,
    max_client_batch: MaxClientBatch = None,
    sample: Annotated[
        Path | None,
        typer.Option(help="An .npz file of real rows, by input name.  [default: random input]"),
    ] = None,
    self_contained: Annotated[
        bool, typer.Option("--self-contained", help="Copy the package postprocess along.")
    ] = False,
    layout: Annotated[
        str,
        typer.Option(help="ensemble: three models, all modes of the defence; fused: one, fastest."),
    ] = "ensemble",
    force: Annotated[bool, typer.Option("--force", help="Replace models of that name.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Write the models that serve an ONNX classifier of yours, protected."""
    from deploy.commands import protect_summary
    from exporters.classifier import ProtectOptions
    from exporters.protect import protect as protect_onnx

    if scores not in ("", *CHOICES["scores"]):
        raise InputError(f"--scores: expected logits or probabilities, got {scores!r}")
    asked = ProtectOptions(
        name=name,
        scores=scores,
        multi_label=multi_label,
        class_axis=class_axis,
        output=output,
        max_batch_size=max_batch_size,
        max_client_batch=max_client_batch,
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
def check(
    repository: Annotated[Path, typer.Argument(metavar="MODEL_REPOSITORY")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look for what would stop a model repository from loading, leak, or defend badly.

    Exits with 1 if there is an error; warnings do not change the exit code.
    """
    from deploy.repository.check import check as check_repository

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


app.command()(retune)
app.command()(tune)
app.command()(serve)
app.command()(audit)
app.command()(gateway)
app.command()(attack)
app.command()(overhead)
app.command()(benchmark)
app.command()(paper)


def run() -> int:
    """Run the command line and return the exit code: 1 with one line for what a person can mend."""
    install()
    try:
        code = int(app(standalone_mode=False) or 0)
        return _interrupted() if code == _INTERRUPTED else code  # some versions of Typer catch it
    except ReverseSigmoidError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except UsageError as error:
        if not error.format_message():  # nothing was asked for, and the help was shown
            return 2
        message = f"{error.format_message()} (see --help)"
    except (typer.Abort, KeyboardInterrupt):
        return _interrupted()
    except Terminated as stop:
        return 128 + stop.number
    say(f"reverse-sigmoid: {message}", console=err_console)
    return 1


def _interrupted() -> int:
    goes_on = "; the same command goes on" if _RESUMED.intersection(sys.argv[1:2]) else ""
    say(f"reverse-sigmoid: interrupted{goes_on}", console=err_console)
    return _INTERRUPTED
