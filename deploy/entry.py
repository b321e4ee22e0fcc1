"""The console script: the command line, or the install command of what it lacks."""

import atexit
import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

#: Top-level module to the extra that installs it.
EXTRAS = {
    "keras": "export",
    "tensorflow": "export",
    "tf2onnx": "export",
    "onnx": "export",
    "sklearn": "export",
    "onnxruntime": "serve",
    "pytriton": "serve",
    "tritonclient": "serve",
    "envoy": "gateway",
    "yaml": "gateway",
    "matplotlib": "attack",
    "scipy": "attack",
    "distributed": "cluster",
    "typer": "all",
    "rich": "all",
}
#: What the extra of ``paper`` installs, for that command.
PAPER = {"keras", "sklearn", "matplotlib", "scipy"}


def shadowed() -> str | None:
    """Return which of our packages Python would take from elsewhere, and from where."""
    for name in ("postprocess", "exporters", "load_tests"):
        spec = find_spec(name)
        found = spec and (spec.origin or next(iter(spec.submodule_search_locations or ()), None))
        if found and Path(__file__).resolve().parents[1] not in Path(found).resolve().parents:
            return (
                f"needs its own package {name}, and what stands at {found} shadows it; rename "
                "that, or take it off Python's path"
            )
    return None


def main() -> None:
    """Run ``reverse-sigmoid`` as a program and exit with its code."""
    try:
        run()
    except SystemExit as end:
        if isinstance(end.code, int) and end.code > 128:
            # What a signal broke off within a library may crash while Python takes it down.
            atexit._run_exitfuncs()  # what Python does first, too
            with suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(end.code)
        raise


def run() -> None:
    """Run ``reverse-sigmoid`` in this process and exit with its code."""
    try:
        reason = shadowed()
        if reason is not None:
            sys.exit(f"reverse-sigmoid: {reason}")
        from deploy.commands import app

        code = app.run()
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        extra = "paper" if sys.argv[1:2] == ["paper"] and module in PAPER else EXTRAS[module]
        print(
            f"reverse-sigmoid: needs {module}, which is not installed: "
            f"in the clone of its repository, python -m pip install -c deploy/constraints.txt "
            f"-e '.[{extra}]'",
            file=sys.stderr,
        )
        code = 1
    except KeyboardInterrupt:  # while the above was looked for, or being imported
        code = 130
    sys.exit(code)
