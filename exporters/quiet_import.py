"""Importing packages that greet on stderr from C++, without all that they might use."""

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator

#: What Keras imports if it is there, for plots and tables that nobody here makes: a third of the
#: time that it takes to start.
UNUSED = ("matplotlib", "pandas", "sklearn")
#: What TensorFlow does by itself on newer processors alone, and what takes a third less time to
#: train on others too. Empty: as it would by itself.
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"


def import_quietly(*modules: str) -> None:
    """Import the modules, and show what they wrote to stderr only if that fails.

    TensorFlow tells every user at every start which CPU instructions it has and that there is
    no GPU, past Python's own stderr and whatever its log level. ``UNUSED`` packages are not there
    for them, unless they have been imported before. It calculates by oneDNN unless the environment
    says otherwise.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault(ONEDNN, "1")
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as written, _hidden(*UNUSED):
        os.dup2(written.fileno(), 2)
        try:
            for module in modules:
                importlib.import_module(module)
        except BaseException:
            written.seek(0)
            os.write(saved, written.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


@contextlib.contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Have packages that are not imported yet be as if they were not installed."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
