"""Which ONNX files the ONNX Runtime of which Triton release can load."""

from dataclasses import dataclass
from typing import Any

from exporters.graph import onnx_graph


@dataclass(frozen=True)
class Release:
    """A release of NVIDIA's container, the first of those with its ONNX Runtime's limits."""

    name: str
    onnxruntime: str
    opset: int  #: the newest of ai.onnx that it takes as released
    ir: int


#: The releases by build.py of their branches (``ort_version``), the limits by loading a file of
#: each opset and IR version with that ONNX Runtime.
RELEASES = (
    Release("24.10", "1.19.2", 21, 10),
    Release("25.03", "1.21.0", 22, 10),
    Release("25.08", "1.23.0", 23, 11),
    Release("26.02", "1.24.1", 25, 13),
    Release("26.07", "1.27.0", 26, 13),
)
OLDEST, NEWEST = RELEASES[0], RELEASES[-1]
#: What every release from ``OLDEST`` on loads, as advice.
SAFE = f"export it with an opset of 17 to {OLDEST.opset} and IR version {OLDEST.ir} or older"


def warnings(model: Any) -> list[str]:
    """Return what to know before serving an ONNX file on a Triton container, if anything."""
    opset, ir = onnx_graph.opset(model), model.ir_version
    able = [release for release in RELEASES if opset <= release.opset and ir <= release.ir]
    if OLDEST in able:
        return []
    said = f"IR version {ir} and opset {opset}: "
    if not able:
        return [f"{said}no Triton release up to {NEWEST.name} is known to load it; {SAFE}"]
    first, before = able[0], RELEASES[RELEASES.index(able[0]) - 1]
    return [
        f"{said}NVIDIA's Triton containers load it from release {first.name} on (ONNX Runtime "
        f"{first.onnxruntime}); those before, back to {OLDEST.name}, take at most opset "
        f"{before.opset} and IR version {before.ir}; for them, {SAFE}"
    ]


def is_newer(model: Any) -> bool:
    """Return whether a file is newer than every release known here loads."""
    return onnx_graph.opset(model) > NEWEST.opset or model.ir_version > NEWEST.ir
