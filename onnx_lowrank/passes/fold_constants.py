"""Make weights visible: what a layer reads as a constant becomes an initializer."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.passes.base import PassResult


class FoldConstantsPass:
    """Turn computed weights and biases of the selected layers into initializers.

    1. ``Constant`` and ``ConstantOfShape`` nodes.
    2. Chains of nodes on constants (Transpose, Cast, Reshape, DequantizeLinear, ...).

    A constant that others read too stays for them.

    Parameters
    ----------
    layers : collection of str
        The layers to touch.
    """

    name = "fold-constants"

    def __init__(self, layers: Collection[str]) -> None:
        self.layers = frozenset(layers)

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Rewrite `model` in place."""
        editor = GraphEditor(model)
        changes = []
        for layer in find_layers(model):
            if layer.name not in self.layers or layer.reason is not None:
                continue
            for index, name in enumerate(layer.node.input[1:], start=1):
                value = editor.constant(name) if editor.producer(name) is not None else None
                if value is not None:
                    editor.set_input(layer.node, index, editor.add_initializer(name, value))
                    changes.append(f"{layer.name}: {name} is an initializer now")
        editor.remove_dead()
        return PassResult(bool(changes), tuple(changes))
