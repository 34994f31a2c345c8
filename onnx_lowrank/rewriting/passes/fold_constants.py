"""Make weights visible: what a layer reads as a constant becomes an initializer."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import onnx

from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.rewriting.passes.base import PassResult


class FoldConstantsPass:
    """Turn computed weights and biases of the selected layers into initializers.

    1. ``Constant`` and ``ConstantOfShape`` nodes.
    2. Chains of nodes on constants (Transpose, Cast, Reshape, DequantizeLinear, ...).

    3. Inputs of the model that have an initializer, which a caller might override, count as the
       constants that they are by default: for these layers alone, and the result names them.

    A constant that only selected layers read keeps its name; one that others read too stays for
    them as it is, and the layers get one initializer together.

    Parameters
    ----------
    layers : collection of str
        The layers to touch.
    """

    name: ClassVar[str] = "fold-constants"

    def __init__(self, layers: Collection[str]) -> None:
        self.layers = frozenset(layers)

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Rewrite `model` in place."""
        editor = GraphEditor(model)
        layers = [
            layer
            for layer in find_layers(model)
            if layer.name in self.layers and layer.reason is None
        ]
        selected = {id(layer.node) for layer in layers}
        made: dict[str, str] = {}
        frozen: list[str] = []
        changes = []
        for layer in layers:
            for index, name in enumerate(layer.node.input[1:], start=1):
                frozen += editor.optional_inputs(name)
                node = editor.producer(name)
                value = None if node is None else editor.constant(name, defaults=True)
                if node is None or value is None:
                    continue
                alone = list(node.output) == [name] and not editor.is_graph_output(name)
                if alone and all(id(reader) in selected for reader in editor.consumers(name)):
                    editor.fold(name)
                else:
                    if name not in made:
                        made[name] = editor.add_initializer(name, value)
                    editor.set_input(layer.node, index, made[name])
                changes.append(f"{layer.name}: constant '{name}' is an initializer now")
        editor.remove_dead()
        return PassResult(bool(changes), tuple(changes), frozen=tuple(dict.fromkeys(frozen)))
