"""The defence as a Triton model; all of it is in the installed package ``postprocess``."""

from postprocess.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
