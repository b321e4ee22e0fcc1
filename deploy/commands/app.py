"""The command ``reverse-sigmoid``: which commands there are, and how it ends."""

import math
import signal
import sys
from functools import wraps
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import postprocess
from deploy.commands.console import err_console, out_console, say
from deploy.commands.signals import Terminated, behind, heard, install
from postprocess.errors import InputError, ReverseSigmoidError

#: Command to the first line of its help. Each is a module beside this one, with a dataclass
#: ``<Name>Command``, which is imported when it is called.
COMMANDS = {
    "demo": "Train, export, protect, serve and attack a classifier, of handwritten digits or of "
    "yours.",
    "export": "Train a classifier and write it, protected, to a model repository.",
    "protect": "Protect ONNX classifiers, or models of any backend in a Triton repository.",
    "check": "Look for what would stop a repository from loading, leak scores, or defend badly.",
    "retune": "Change the parameters of protected models' defences, in place, of either layout.",
    "calibrate": "Answer with the label and one of a few calibrated levels of confidence, offline.",
    "tune": "Find beta and gamma for protected models, offline: no server is asked or restarted.",
    "serve": "Serve a model repository with the embedded Triton until Ctrl-C or SIGTERM.",
    "audit": "Try from the outside every way round the defence that is known.",
    "gateway": "Write Envoy's configuration, checked by Envoy itself, and what Prometheus and "
    "Redis need.",
    "attack": "Steal from an endpoint of yours, and report what a thief would get.",
    "overhead": "Measure latency and throughput of a protected and an unprotected model, "
    "interleaved.",
    "benchmark": "Measure a protected model beside its classifier alone and other ways to defend "
    "it.",
    "paper": "Make the runs that are missing in --out, and write RESULTS.md of all that are there.",
}
#: Those that keep what they have done.
_RESUMED = {"attack", "paper", "tune"}

# Some versions of Typer bring a click of their own; this is its UsageError in all of them.
UsageError: Any = typer.BadParameter.__mro__[1]
_INTERRUPTED = 128 + signal.SIGINT


#: Of a help. Rich's table of options would cut long names where a terminal is narrow.
_AS_WIDE_AS_THE_TERMINAL = {"max_content_width": sys.maxsize}


class _Commands(TyperGroup):
    """Lists commands by a line for each, and imports the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and _imported(name), rest


def _imported(name: str) -> Any:
    """Return what Typer makes of a command's dataclass: its fields are the options."""
    made = getattr(import_module(f"deploy.commands.{name}"), f"{name.capitalize()}Command")

    @wraps(made, updated=())
    def call(**given: Any) -> None:
        for option, value in given.items():
            # A time that never comes; and nan, which some versions of Typer let through a bound.
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"--{option.replace('_', '-')}: expected a number, got {value:g}")
        made(**given).run()

    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name, context_settings=_AS_WIDE_AS_THE_TERMINAL)(call)
    return typer.main.get_command(alone)


app = typer.Typer(
    cls=_Commands,
    help="Serve a classifier on NVIDIA Triton without handing the model to whoever queries it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _name, _line in COMMANDS.items():
    app.command(_name, help=_line)(lambda: None)


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


def run() -> int:
    """Run the command line and return the exit code: 1 with one line for what a person can mend."""
    install()
    try:
        code = int(app(standalone_mode=False) or 0)
        return _interrupted() if code == _INTERRUPTED else code  # some versions of Typer catch it
    except BaseException as error:
        return _told(behind(error))
    finally:
        heard()


def _told(error: BaseException) -> int:
    """Say in one line what ended a command, and return its exit code; raise what is a fault."""
    if isinstance(error, (typer.Abort, KeyboardInterrupt)):
        return _interrupted()
    if isinstance(error, Terminated):
        return 128 + error.number
    if isinstance(error, ReverseSigmoidError):
        message = str(error)
    elif isinstance(error, OSError):
        from exporters.files.atomic_file import told

        message = told(error)
    elif _is_of_triton(error):
        message = f"Triton: {error}"
    elif isinstance(error, UsageError):
        if not error.format_message():  # nothing was asked for, and the help was shown
            return 2
        message = f"{error.format_message()} (see --help)"
    else:
        raise error
    say(f"reverse-sigmoid: {message}", console=err_console)
    return 1


def _is_of_triton(error: BaseException) -> bool:
    """Say whether Triton said so, or did not answer, where nobody expected that."""
    loaded = sys.modules.get("tritonclient.utils")  # not for this: it takes half a second
    return loaded is not None and isinstance(error, loaded.InferenceServerException)


def _interrupted() -> int:
    goes_on = "; the same command goes on" if _RESUMED.intersection(sys.argv[1:2]) else ""
    say(f"reverse-sigmoid: interrupted{goes_on}", console=err_console)
    return _INTERRUPTED
