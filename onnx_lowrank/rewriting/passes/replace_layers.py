"""Replace layers by the nodes that their factors stand for."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.graph.subgraph_builder import SubgraphBuilder
from onnx_lowrank.rewriting.form import Replacement
from onnx_lowrank.rewriting.lowering import standard
from onnx_lowrank.rewriting.lowering.functions import declare_functions
from onnx_lowrank.rewriting.passes.base import PassResult, Refusal


class ReplaceLayersPass:
    """Replace every layer that has factors by their nodes.

    1. A layer whose form serves the structure of its factors becomes the nodes of that form.
    2. Where the form does not serve it, which counts as refused, it becomes standard ops.
    3. A layer without factors, or whose shape cannot be read, stays as it is.

    Parameters
    ----------
    replacements : mapping of str to Replacement
        By layer name.
    input_shapes : mapping, optional
        Shapes of graph inputs that the model leaves open; they only help to choose which 1x1
        convolutions are grouped.
    """

    name = "replace-layers"

    def __init__(
        self,
        replacements: Mapping[str, Replacement],
        *,
        input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.replacements = replacements
        self.input_shapes = input_shapes

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Rewrite `model` in place."""
        layers = find_layers(model, input_shapes=self.input_shapes)
        editor = GraphEditor(model)
        changes, refusals = [], []
        for layer in layers:
            if layer.name not in self.replacements or layer.spec is None:
                continue  # 3
            chosen = self.replacements[layer.name]
            builder = SubgraphBuilder(layer.name, layer.dtype)
            refusal = chosen.form.refusal(type(chosen.factors), layer.spec, layer.dtype)
            if refusal is None:  # 1
                chosen.form.lower(chosen.factors, layer.spec, chosen.bias, builder)
            else:  # 2
                refusals.append(Refusal(layer.name, f"{refusal}: standard ops it is"))
                standard.lower(chosen.factors, layer.spec, chosen.bias, builder)
            editor.replace(layer.node, builder)
            changes.append(f"{layer.name}: replaced by {type(chosen.factors).__name__}")
        editor.remove_dead()
        declare_functions(model)
        return PassResult(bool(changes), tuple(changes), tuple(refusals))
