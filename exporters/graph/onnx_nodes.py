"""Appending operators to an ONNX graph, in whatever version its operator set is."""

from collections.abc import Sequence
from typing import Any

import numpy as np

#: Triton's names of the types that nodes compute in, as ONNX numbers them.
TYPES = {"TYPE_FP16": 10, "TYPE_FP32": 1, "TYPE_FP64": 11}
#: Operator sets since which axes are an input and no attribute.
_AXES_AS_INPUT = {
    "ReduceSum": 13, "ReduceMax": 18, "ReduceMin": 18, "ReduceLogSumExp": 18, "Squeeze": 13,
    "Unsqueeze": 13,
}  # fmt: skip


class Nodes:
    """Operators at the end of a graph; their names, and their tensors', begin with a prefix."""

    def __init__(self, model: Any, prefix: str, *, opset: int) -> None:
        self._graph, self._prefix, self._opset = model.graph, prefix, opset
        self._constants: set[str] = set()
        self._count = 0

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append an operator of one output and return the output's name."""
        return self.add_many(op, inputs, [output], **attributes)[0]

    def add_many(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> list[str]:
        """Append an operator and return the names of its outputs; "" lets one be chosen."""
        from onnx import helper

        name = f"{self._prefix}{op}_{self._count}"
        self._count += 1
        names = [given or f"{name}:{index}" for index, given in enumerate(outputs)]
        self._graph.node.append(helper.make_node(op, list(inputs), names, name=name, **attributes))
        return names

    def reduce(self, op: str, tensor: str) -> str:
        """Append a reduction over the last axis, which stays with size 1."""
        return self.last_axis(op, tensor, keepdims=1)

    def last_axis(self, op: str, tensor: str, **attributes: Any) -> str:
        """Append an operator that is told the axis, the last one."""
        if self._opset < _AXES_AS_INPUT[op]:
            return self.add(op, tensor, axes=[-1], **attributes)
        return self.add(op, tensor, self.constant("last_axis", np.array([-1])), **attributes)

    def cast(self, tensor: str, data_type: str, output: str = "") -> str:
        """Append a cast to one of Triton's floating types."""
        return self.add("Cast", tensor, to=TYPES[data_type], output=output)

    def number(self, name: str, value: float) -> str:
        """Return the name of a float64 scalar among the graph's initializers."""
        return self.constant(name, np.array(value, np.float64))

    def constant(self, name: str, value: Any) -> str:
        """Return the name of an initializer; the first use of a name makes it."""
        from onnx import numpy_helper

        full = self._prefix + name
        if full not in self._constants:
            self._constants.add(full)
            self._graph.initializer.append(numpy_helper.from_array(value, full))
        return full
