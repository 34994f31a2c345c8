"""Fold BatchNormalization into the Conv before it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx

from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import Layer, attribute, find_layers, layer_bias, layer_weight
from onnx_lowrank.passes.base import PassResult, Refusal


class FoldBatchNormPass:
    """Fold BatchNormalization in inference mode into the weight and bias of a selected Conv.

    Folded where the normalisation is all that reads the Conv. Refused, with the reason:

    1. the Conv's output is read elsewhere or is an output of the model;
    2. a parameter of the normalisation is not constant;
    3. the normalisation is in training mode or has more than one output.

    Parameters
    ----------
    layers : collection of str
        The layers to touch.
    """

    name = "fold-batchnorm"

    def __init__(self, layers: Collection[str]) -> None:
        self.layers = frozenset(layers)

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Rewrite `model` in place."""
        editor = GraphEditor(model)
        changes, refusals = [], []
        for layer in find_layers(model):
            if layer.name not in self.layers or layer.op != "Conv" or layer.reason is not None:
                continue
            readers = editor.consumers(layer.node.output[0])
            norm = next((n for n in readers if n.op_type == "BatchNormalization"), None)
            if norm is None or norm.input[0] != layer.node.output[0]:
                continue
            if reason := _refusal(editor, layer, norm, len(readers)):
                refusals.append(Refusal(layer.name, reason))
                continue
            _fold(editor, layer, norm)
            changes.append(f"{layer.name}: BatchNormalization folded in")
        editor.remove_dead()
        return PassResult(bool(changes), tuple(changes), tuple(refusals))


def _refusal(editor: GraphEditor, layer: Layer, norm: onnx.NodeProto, readers: int) -> str | None:
    if readers != 1 or editor.is_graph_output(layer.node.output[0]):
        return "the BatchNormalization behind it stays: its input is used elsewhere too"
    if any(editor.constant(name) is None for name in norm.input[1:]):
        return "the BatchNormalization behind it stays: its parameters are not constant"
    if attribute(norm, "training_mode", 0) or any(norm.output[1:]):
        return "the BatchNormalization behind it stays: it is in training mode"
    return None


def _fold(editor: GraphEditor, layer: Layer, norm: onnx.NodeProto) -> None:
    values = [editor.constant(name) for name in norm.input[1:5]]
    scale, shift, mean, variance = (np.asarray(v, np.float64) for v in values)
    factor = scale / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    weight, bias = layer_weight(editor, layer), layer_bias(editor, layer)
    weight = weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    bias = shift + factor * ((0.0 if bias is None else bias) - mean)
    node = layer.node
    node.name = layer.name  # an unnamed Conv is called by the output that it now loses
    bias_name = node.input[2] if len(node.input) > 2 and node.input[2] else f"{layer.name}.bias"
    editor.set_input(node, 1, editor.add_initializer(node.input[1], weight.astype(layer.dtype)))
    editor.set_input(node, 2, editor.add_initializer(bias_name, bias.astype(layer.dtype)))
    result = norm.output[0]
    editor.remove(norm)
    editor.rename(node.output[0], result)
