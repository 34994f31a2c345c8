"""Give a Gemm its input as rows."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import onnx
from onnx import helper

from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import attribute, find_layers
from onnx_lowrank.rewriting.passes.base import PassResult


class NormalizeGemmPass:
    """Replace transA of the selected Gemms by a Transpose in front of them.

    Samples are the rows of what remains, as in every other layer.

    Parameters
    ----------
    layers : collection of str
        The layers to touch.
    """

    name: ClassVar[str] = "normalize-gemm"

    def __init__(self, layers: Collection[str]) -> None:
        self.layers = frozenset(layers)

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Rewrite `model` in place."""
        chosen = [
            layer
            for layer in find_layers(model)
            if layer.name in self.layers
            and layer.op == "Gemm"
            and layer.reason is None
            and attribute(layer.node, "transA", 0)
        ]
        editor = GraphEditor(model)
        for layer in chosen:
            node = layer.node
            rows = editor.unique_name(f"{node.input[0]}.rows")
            name = editor.unique_name(f"{layer.name}/rows")
            editor.insert_before(
                node, helper.make_node("Transpose", [node.input[0]], [rows], name, perm=[1, 0])
            )
            editor.set_input(node, 0, rows)
            place = next(i for i, each in enumerate(node.attribute) if each.name == "transA")
            del node.attribute[place]
        changes = tuple(f"{layer.name}: its input is transposed in front of it" for layer in chosen)
        return PassResult(bool(changes), changes)
