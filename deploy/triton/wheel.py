"""What the nvidia-pytriton wheel holds, laid out so that its tritonserver runs."""

import ctypes
import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from postprocess.errors import InputError

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def find() -> Path:
    """Return the folder of the wheel's server, ``pytriton/tritonserver``.

    Raises:
        ModuleNotFoundError: the wheel is not installed.
        InputError: this Python cannot run Triton's Python backend.
    """
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'pytriton'", name="pytriton")
    _refuse_static_python()
    return Path(spec.origin).parent / "tritonserver"


def _refuse_static_python() -> None:
    """The wheel's Python backend links libpython, which some builds of Python lack."""
    name = f"libpython{VERSION}.so.1.0"
    if (Path(sysconfig.get_config_var("LIBDIR")) / name).exists():
        return
    try:
        ctypes.CDLL(name)
    except OSError:
        raise InputError(
            f"Triton's Python backend needs {name}, and this Python has none: install your "
            f"distribution's libpython{VERSION}, or a Python built with --enable-shared"
        ) from None


def lay_out_backends(wheel: Path, backends: Path) -> None:
    """Make the backend directory: the wheel's Python backend, and ours for ONNX models."""
    python = backends / "python"
    python.mkdir(parents=True)
    # Copies: Triton refuses a library that a link leads out of the backend directory.
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        shutil.copyfile(wheel / "backends" / "python" / name, python / name)
    stub = wheel / "python_backend_stubs" / VERSION / "triton_python_backend_stub"
    if not stub.is_file():
        raise InputError(f"nvidia-pytriton has no Python backend for Python {VERSION}")
    shutil.copyfile(stub, python / stub.name)
    (python / stub.name).chmod(0o755)  # an installer may have dropped it
    shutil.copytree(Path(__file__).parent / "backends" / "onnxruntime", backends / "onnxruntime")


def environment(wheel: Path) -> dict[str, str]:
    """Return the environment variables that tritonserver and its stubs run with."""
    variables = dict(os.environ)
    libraries = [
        wheel.parent.parent / "nvidia_pytriton.libs",
        # The stub links libpython; take this interpreter's own before the system's.
        sysconfig.get_config_var("LIBDIR"),
        variables.get("LD_LIBRARY_PATH"),
    ]
    variables["LD_LIBRARY_PATH"] = ":".join(str(entry) for entry in libraries if entry)
    # The stub takes its environment from the first python3 on the path.
    variables["PATH"] = f"{Path(sys.prefix) / 'bin'}:{variables.get('PATH', os.defpath)}"
    return variables
