"""Importing packages that greet on stderr from C++."""

import importlib
import os
import sys
import tempfile


def import_quietly(*modules: str) -> None:
    """Import the modules, and show what they wrote to stderr only if that fails.

    TensorFlow tells every user at every start which CPU instructions it has and that there is
    no GPU, past Python's own stderr and whatever its log level.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as written:
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
