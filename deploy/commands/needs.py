"""What a command will need at its end, looked for at its beginning."""

import os
from importlib.util import find_spec

from postprocess.errors import InputError


def refuse_missing(*modules: str) -> None:
    """Raise for the first of these packages that is not installed.

    Raises:
        ModuleNotFoundError: of which ``deploy.entry`` makes its install command.
    """
    for module in modules:
        if find_spec(module) is None:
            raise ModuleNotFoundError(name=module)


def refuse_missing_backend() -> None:
    """Raise unless Keras and its backend are installed, for work in processes of their own.

    Raises:
        InputError, ModuleNotFoundError: the backend, or Keras is not installed.
    """
    refuse_missing("keras")
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if find_spec(backend) is None:
        raise InputError(
            f"KERAS_BACKEND: expected tensorflow, jax or torch, and that installed, got {backend}; "
            "unset it, or install that: python -m pip install BACKEND"
        )
