"""Fold BatchNormalization into the Conv before it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.graph.edit import GraphEditor, carry_notes
from onnx_lowrank.graph.layers import Layer, attribute, find_layers, layer_bias, layer_weight
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.rewriting.passes.base import PassResult, Refusal


class FoldBatchNormPass:
    """Fold BatchNormalization in inference mode into the weight and bias of a selected Conv.

    Folded where the normalisation reads the Conv and nothing else does. Refused, with the reason:

    1. the Conv's output is read elsewhere, or is an output of the model;
    2. the normalisation is in training mode (up to opset 6 unless ``is_test``, from opset 14 on by
       ``training_mode``), or has outputs besides the first;
    3. it normalises every element by itself (``spatial=0``, up to opset 8);
    4. a parameter of it is not constant, or not one value for each filter; an input with a
       default, which a caller might override, counts as that constant, and the result names it;
    5. the folded values leave the range of the weight's type.

    The Conv keeps its name as a layer, and takes over the name of the normalisation's output.

    Parameters
    ----------
    layers : collection of str
        The layers to touch.
    """

    name: ClassVar[str] = "fold-batchnorm"

    def __init__(self, layers: Collection[str]) -> None:
        self.layers = frozenset(layers)

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Rewrite `model` in place."""
        editor = GraphEditor(model)
        changes, refusals, frozen = [], [], list[str]()
        for layer in find_layers(model):
            if layer.name not in self.layers or layer.op != "Conv" or layer.reason is not None:
                continue
            # One behind the other too, until there is none or one that stays.
            while (norm := _behind(editor, layer)) is not None:
                folded = _fold(editor, layer, norm)
                if isinstance(folded, str):
                    reason = f"the BatchNormalization behind it stays: {folded}"
                    refusals.append(Refusal(layer.name, reason))
                    break
                frozen += [each for n in norm.input[1:5] for each in editor.optional_inputs(n)]
                _write(editor, layer, norm, *folded)
                changes.append(f"{layer.name}: BatchNormalization '{norm.name}' folded in")
        editor.remove_dead()
        return PassResult(
            bool(changes), tuple(changes), tuple(refusals), tuple(dict.fromkeys(frozen))
        )


def _behind(editor: GraphEditor, layer: Layer) -> onnx.NodeProto | None:
    """Return a BatchNormalization that normalises what a layer computes."""
    output = layer.node.output[0]
    for node in editor.consumers(output):
        if is_op(node, "BatchNormalization") and node.input[0] == output:
            return node
    return None


def _refusal(editor: GraphEditor, layer: Layer, norm: onnx.NodeProto) -> str | None:
    output = layer.node.output[0]
    if len(editor.consumers(output)) != 1 or editor.is_graph_output(output):  # 1
        return f"'{output}' is used elsewhere too"
    training = attribute(norm, "training_mode", 0)
    if editor.opset < 7:
        training = not attribute(norm, "is_test", 0)
    if training or any(norm.output[1:]):  # 2
        return "it is in training mode"
    if editor.opset < 9 and not attribute(norm, "spatial", 1):  # 3
        return "it normalises every element by itself (spatial=0)"
    for name in norm.input[1:5]:  # 4
        value = editor.constant(name, defaults=True)
        if value is None:
            return f"its parameter '{name}' is not constant"
        if layer.spec is None or value.shape != (layer.spec.out_channels,):
            return f"its parameter '{name}' is not one value for each filter"
    return None


def _fold(
    editor: GraphEditor, layer: Layer, norm: onnx.NodeProto
) -> tuple[NDArray[Any], NDArray[Any]] | str:
    """Return the new weight and bias in the layer's type, or why there are none."""
    if reason := _refusal(editor, layer, norm):
        return reason
    scale, shift, mean, variance = (
        np.asarray(editor.constant(name, defaults=True), np.float64) for name in norm.input[1:5]
    )
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        factor = scale / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
        weight, bias = layer_weight(editor, layer), layer_bias(editor, layer)
        weight *= factor.reshape(-1, *(1,) * (weight.ndim - 1))
        bias = shift + factor * ((0.0 if bias is None else bias) - mean)
        folded = weight.astype(layer.dtype), bias.astype(layer.dtype)
    if not all(np.isfinite(value).all() for value in folded):  # 5
        return f"folded values leave the range of {layer.dtype.name}"
    return folded


def _write(
    editor: GraphEditor,
    layer: Layer,
    norm: onnx.NodeProto,
    weight: NDArray[Any],
    bias: NDArray[Any],
) -> None:
    node = layer.node
    node.name = layer.name  # an unnamed Conv is called by the output that it loses here
    editor.set_constant(node, 1, weight, base=layer.weight)
    editor.set_constant(node, 2, bias, base=layer.bias or f"{layer.name}.bias")
    carry_notes(norm, node)
    result = norm.output[0]
    editor.remove(norm)
    editor.rename(node.output[0], result)
