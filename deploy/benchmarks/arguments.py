"""What the benchmarks take from their command lines, and how such a line is told again."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exporters.files.atomic_file import told
from postprocess.errors import ReverseSigmoidError

_SHARED: dict[str, dict[str, Any]] = {
    "repository": {"type": Path},
    "operator": {"type": Path},
    "model": {},
    "--ca": {"type": Path, "help": "certificates to trust, where there is TLS"},
    "--victim": {"type": Path, "help": "its ONNX file; found for an ensemble"},
    "--minutes": {"type": float, "default": 30},
    "--clients": {"type": int, "default": 8},
    "--batch": {"type": int, "default": 1},
    "--seed": {"type": int, "default": 0},
}


def parser(name: str, *shared: str) -> argparse.ArgumentParser:
    """Return the parser of ``python -m deploy.benchmarks.NAME``, with some of what is shared."""
    made = argparse.ArgumentParser(prog=f"python -m deploy.benchmarks.{name}")
    for one in shared:
        made.add_argument(one, **_SHARED[one])
    return made


def ended(main: Callable[[], int]) -> int:
    """Return the exit code of a benchmark that keeps what it has done, after one line of why."""
    try:
        return main()
    except ReverseSigmoidError as error:
        said, code = str(error), 1
    except OSError as error:
        said, code = told(error), 1
    except KeyboardInterrupt:
        said, code = "interrupted; the same command goes on", 130
    print(f"{Path(sys.argv[0]).stem}: {said}", file=sys.stderr)
    return code


def command(name: str) -> str:
    """Return the command line of this process."""
    return " ".join(["python", "-m", f"deploy.benchmarks.{name}", *sys.argv[1:]])
