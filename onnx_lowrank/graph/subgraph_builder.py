"""A small subgraph that replaces one node, authored with onnx_graphsurgeon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.conv import Window
from onnx_lowrank.types import AnyArray


class SubgraphBuilder:
    """A subgraph under construction, with one input and one output.

    Nodes are called ``<prefix>/<name>``, constants ``<prefix>.<name>``. Tensors are handed on by
    name. `GraphEditor.replace` puts it in a node's place.

    Parameters
    ----------
    prefix : str
        Name of the layer that is replaced.
    dtype : numpy.dtype
        Type of the layer's weight: floating-point constants are rounded to it.
    """

    def __init__(self, prefix: str, dtype: np.dtype[Any]) -> None:
        import onnx_graphsurgeon as gs

        self.prefix = prefix
        self.dtype = np.dtype(dtype)
        self._gs = gs
        self._input = gs.Variable("input", dtype=self.dtype)
        self._graph = gs.Graph(inputs=[self._input])
        self._tensors: dict[str, Any] = {"input": self._input}

    @property
    def input(self) -> str:
        """Name of the tensor that the replaced node reads."""
        return "input"

    def conv(
        self,
        x: str,
        weight: AnyArray,
        *,
        bias: AnyArray | None = None,
        window: Window | None = None,
        group: int = 1,
        name: str,
    ) -> str:
        """Append a Conv and return its output.

        Parameters
        ----------
        x : str
            Tensor to read.
        weight : ndarray, shape (F, C / group, *kernel)
        bias : ndarray, shape (F,), optional
        window : Window, optional
            How the kernel moves over `x`; by steps of 1 and without pads by default.
        group : int
            Number of groups.
        name : str
            Of the node, unique in this builder.
        """
        window = window or Window.of_ones(weight.ndim - 2)
        attributes: dict[str, Any] = {
            "kernel_shape": list(weight.shape[2:]),
            "strides": list(window.strides),
            "dilations": list(window.dilations),
            "group": group,
        }
        if window.auto_pad == "NOTSET":
            attributes["pads"] = list(window.pads)
        else:
            attributes["auto_pad"] = window.auto_pad
        inputs = [x, self.constant(weight, f"{name}.weight")]
        if bias is not None:
            inputs.append(self.constant(bias, f"{name}.bias"))
        return self.node("Conv", inputs, attributes, name=name)

    def gemm(self, x: str, weight: AnyArray, *, bias: AnyArray | None = None, name: str) -> str:
        """Append a Gemm on rows, ``x @ weight.T + bias``, and return its output.

        Parameters
        ----------
        x : str
            Tensor of shape (N, C).
        weight : ndarray, shape (F, C)
        bias : ndarray, shape (F,), optional
        name : str
            Of the node, unique in this builder.
        """
        # Up to opset 10 a Gemm without a bias is invalid.
        bias = np.zeros(weight.shape[0]) if bias is None else bias
        inputs = [
            x,
            self.constant(weight, f"{name}.weight"),
            self.constant(bias, f"{name}.bias"),
        ]
        return self.node("Gemm", inputs, {"transB": 1}, name=name)

    def matmul(self, x: str, weight: AnyArray, *, name: str) -> str:
        """Append a MatMul on the last axis, ``x @ weight.T``, and return its output.

        Parameters
        ----------
        x : str
            Tensor of shape (..., C).
        weight : ndarray, shape (F, C)
        name : str
            Of the node, unique in this builder.
        """
        return self.node("MatMul", [x, self.constant(weight.T, f"{name}.weight")], name=name)

    def gather(self, x: str, indices: NDArray[np.int64], *, axis: int = 1, name: str) -> str:
        """Append a Gather by constant indices and return its output."""
        constant = self.constant(indices.astype(np.int64), f"{name}.indices")
        return self.node("Gather", [x, constant], {"axis": axis}, name=name)

    def constant(self, value: AnyArray, name: str) -> str:
        """Add a constant; floats are rounded to the layer's own type, others stay as they are."""
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(self.dtype)
        full = self._new(f"{self.prefix}.{name}")
        self._tensors[full] = self._gs.Constant(full, np.asarray(array, order="C"))
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
        """Append any node with one output and return that; ``""`` is an input left out."""
        output = self._new(f"{self.prefix}/{name}:0")
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

    def _new(self, name: str) -> str:
        """Refuse a second tensor of one name: on export the two would silently become one."""
        if name in self._tensors:
            raise ValueError(f"the builder has a '{name}' already")
        return name

    def output(self, x: str) -> None:
        """Declare what takes the place of the replaced node's output."""
        self._graph.outputs = [self._tensors[x]]

    def export(self) -> onnx.GraphProto:
        """Return the subgraph: nodes in order, constants as initializers.

        Raises
        ------
        ValueError
            No node writes an output.
        """
        if not self._graph.outputs or self._graph.outputs[0] is self._input:
            raise ValueError(f"the builder for '{self.prefix}' computes no output")
        exported: onnx.GraphProto = self._gs.export_onnx(self._graph, do_type_check=False).graph
        return exported
