"""The defence as a Triton model; all of it is in the installed package ``postprocess``."""

import postprocess

if getattr(postprocess, "PROJECT", "") != "triton-reverse-sigmoid":
    raise ImportError(
        "expected the postprocess of triton-reverse-sigmoid, and what stands at "
        f"{getattr(postprocess, '__file__', None) or list(postprocess.__path__)} shadows it; "
        "rename that, or copy the package beside this file: protect --self-contained"
    )

from postprocess.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
