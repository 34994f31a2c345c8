"""A small subgraph that replaces one node, authored with onnx_graphsurgeon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray


class Fragment:
    """A subgraph under construction: one input, one output, nodes named ``<prefix>/<name>``."""

    def __init__(self, prefix: str, dtype: np.dtype[Any]) -> None:
        import onnx_graphsurgeon as gs

        self.prefix = prefix
        self.dtype = np.dtype(dtype)
        self._gs = gs
        self._input = gs.Variable("input", dtype=self.dtype)
        self._graph = gs.Graph(inputs=[self._input], opset=13)
        self._tensors: dict[str, Any] = {"input": self._input}

    @property
    def input(self) -> str:
        """Name of the tensor that the replaced node reads."""
        return "input"

    def conv(
        self,
        x: str,
        weight: NDArray[Any],
        *,
        bias: NDArray[Any] | None = None,
        strides: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        auto_pad: str = "NOTSET",
        group: int = 1,
        name: str,
    ) -> str:
        """Append a Conv and return its output."""
        axes = weight.ndim - 2
        attributes: dict[str, Any] = {
            "kernel_shape": list(weight.shape[2:]),
            "strides": list(strides or (1,) * axes),
            "dilations": list(dilations or (1,) * axes),
            "group": group,
        }
        if auto_pad == "NOTSET":
            attributes["pads"] = list(pads or (0,) * (2 * axes))
        else:
            attributes["auto_pad"] = auto_pad
        inputs: list[Any] = [x, self.constant(weight, f"{name}.weight")]
        if bias is not None:
            inputs.append(self.constant(bias, f"{name}.bias"))
        return self.node("Conv", inputs, attributes, name=name)

    def gather(self, x: str, indices: NDArray[Any], *, axis: int = 1, name: str) -> str:
        """Append a Gather by constant indices and return its output."""
        return self.node(
            "Gather", [x, self.constant(indices, f"{name}.indices")], {"axis": axis}, name=name
        )

    def constant(self, value: NDArray[Any], name: str) -> str:
        """Add a constant; floats are rounded to the layer's own type, integers stay as they are."""
        array = np.asarray(value)
        array = array.astype(self.dtype) if array.dtype.kind == "f" else array
        full = f"{self.prefix}.{name}"
        self._tensors[full] = self._gs.Constant(full, np.ascontiguousarray(array))
        return full

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
        name: str,
    ) -> str:
        """Append any node with one output and return that."""
        output = f"{self.prefix}/{name}:0"
        self._tensors[output] = self._gs.Variable(output, dtype=self.dtype)
        self._graph.nodes.append(
            self._gs.Node(
                op=op,
                name=f"{self.prefix}/{name}",
                domain=domain or None,
                attrs=dict(attributes or {}),
                inputs=[self._tensors[i] if i else self._gs.Variable.empty() for i in inputs],
                outputs=[self._tensors[output]],
            )
        )
        return output

    def output(self, x: str) -> None:
        """Declare what takes the place of the replaced node's output."""
        self._graph.outputs = [self._tensors[x]]

    def export(self) -> onnx.GraphProto:
        """Return the subgraph: nodes in order, constants as initializers."""
        return self._gs.export_onnx(self._graph, do_type_check=False).graph
