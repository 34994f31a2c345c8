"""The layers of a model: those that could be approximated, and why the others stay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.graph.attributes import attribute
from onnx_lowrank.graph.check import Shape
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.foreign_layers import MICROSOFT, QUANTISED
from onnx_lowrank.graph.guard import reading
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.graph.places import Place, places
from onnx_lowrank.graph.specs import bias_name, conv_spec, fc_spec, sizes_of
from onnx_lowrank.storage import StoredWeight

__all__ = ["TYPES", "Layer", "attribute", "find_layers", "layer_bias", "layer_weight"]

Sizes = tuple[int, ...]
TYPES = ("float16", "bfloat16", "float32", "float64")  # of weights that can be rewritten


@dataclass(frozen=True)
class Layer:
    """One layer: what it is called, what it computes, and why it cannot be approximated, if so.

    Attributes
    ----------
    name : str
        Name of its node, or the node's first output where the name is empty or an earlier layer has
        it.
    op : str
        Type of the node: Conv, Gemm, MatMul; another one only with a reason.
    node : onnx.NodeProto
        The node in the model itself.
    spec : ConvSpec or None
        What it computes; None where the model does not say.
    dtype : numpy.dtype
        Type of the weight; float32 where it is unknown.
    reason : str or None
        Why it cannot be approximated at all, as a sentence without its full stop.
    macs : int or None
        Multiply-adds by weights for one image; None where they are unknown.
    params : int or None
        Number of weights, without biases; None where it is unknown.
    weights : tuple of StoredWeight or None
        Where they are stored, nothing for weights that are no constants; None where it is unknown.
    """

    name: str
    op: str
    node: onnx.NodeProto
    spec: ConvSpec | None
    dtype: np.dtype[Any]
    reason: str | None
    macs: int | None = None
    params: int | None = None
    weights: tuple[StoredWeight, ...] | None = None

    @property
    def weight(self) -> str:
        """Name of the weight tensor."""
        return str(self.node.input[1])

    @property
    def bias(self) -> str | None:
        """Name of the bias tensor, or None."""
        return bias_name(self.node)


@reading("listing its layers")
def find_layers(
    model: onnx.ModelProto,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    check_values: bool = False,
) -> tuple[Layer, ...]:
    """List the layers in graph order: all nodes that multiply by weights.

    Those that stay as they are have the reason: all but Conv, Gemm and MatMul by a constant, such
    as ConvTranspose, recurrent layers, quantised and fused forms; and all that are inside the
    bodies of If, Loop and Scan and inside model-local functions.

    Parameters
    ----------
    model : onnx.ModelProto
        Any model; not changed.
    input_shapes : mapping of str to tuple of int, optional
        Shapes of inputs, in place of the model's own.
    check_values : bool
        Whether weights with NaN or Inf are a reason too; that takes a pass over all weights.

    Raises
    ------
    ModelError
        An input shape does not fit the model.
    """
    editor = GraphEditor(model)
    layers = []
    for place in places(model, input_shapes):
        if place.where is not None or place.op is not None:
            layers.append(_kept(place))
        else:
            layers.append(_layer(editor, place, check_values))
    return tuple(layers)


def _kept(place: Place) -> Layer:
    """Return a layer that stays, with what is known of its cost."""
    node, op = place.node, place.op
    reason = op.reason if op is not None else ""
    if place.where is not None:
        reason = place.where
    weights = place.stored()
    params, macs = place.cost()
    return Layer(
        place.name, node.op_type, node, None, np.dtype(np.float32), reason, macs, params, weights
    )


def _layer(editor: GraphEditor, place: Place, check_values: bool) -> Layer:
    node, shapes = place.node, place.shapes
    weight = node.input[1]
    tensor = editor.initializer(weight)
    value = None if tensor is not None else editor.constant(weight, defaults=True)
    sparse = place.scope.sparse(weight)
    if tensor is not None:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        shape: Shape | None = tuple(tensor.dims)
    else:
        dtype = np.dtype(np.float32) if value is None else value.dtype
        shape = sparse or shapes.get(weight) if value is None else value.shape
    reason = None
    if sparse is not None:
        reason = f"its weight '{weight}' is stored sparsely; store it dense"
    elif tensor is None and value is None:
        constant = place.scope.is_constant(weight)
        what = (
            "cannot be computed here; fold the constants first" if constant else "is not constant"
        )
        reason = f"its weight '{weight}' {what}"
    elif dtype.name not in TYPES:
        reason = f"its weight '{weight}' is of type {dtype.name}, not floating-point"
    if all(_is_dequantised(editor, each) for each in node.input[:2]):
        reason = QUANTISED
    weights = place.stored()
    sizes = None if shape is None else sizes_of(shape)
    if weights is None and sizes is not None:
        stored = place.scope.stored(weight, sizes)
        weights = None if stored is None else (stored,)
    if sizes is None:
        return Layer(place.name, node.op_type, node, None, dtype, reason, None, None, weights)
    x, y = shapes.get(node.input[0]), shapes.get(node.output[0])
    spec = conv_spec(node, sizes, x, y) if is_op(node, "Conv") else fc_spec(node, sizes, x)
    if spec is None:
        reason = reason or f"its weight '{weight}' is of rank {len(sizes)}"
    else:
        reason = reason or _refusal(editor, node, spec)
    if reason is None and check_values:
        reason = _bad_values(editor, node)
    params = spec.params if spec else math.prod(sizes)
    macs = _macs(node, sizes, place.cost_shapes) if spec else None
    return Layer(place.name, node.op_type, node, spec, dtype, reason, macs, params, weights)


def _macs(node: onnx.NodeProto, weight: Sizes, shapes: Mapping[str, Shape]) -> int | None:
    x, y = shapes.get(node.input[0]), shapes.get(node.output[0])
    spec = conv_spec(node, weight, x, y) if is_op(node, "Conv") else fc_spec(node, weight, x)
    return None if spec is None else spec.macs


def _bad_values(editor: GraphEditor, node: onnx.NodeProto) -> str | None:
    for what, name in (("weight", node.input[1]), ("bias", bias_name(node))):
        value = None if name is None else editor.constant(name)
        if value is not None and not _is_finite(value):
            return f"its {what} has NaN or Inf"
    return None


def _is_finite(value: NDArray[Any]) -> bool:
    """Whether there is no NaN and no Inf: then the sum is finite, or too large for its type."""
    wide = value if value.dtype.itemsize > 2 else value.astype(np.float32)
    with np.errstate(all="ignore"):
        return bool(np.isfinite(wide.sum())) or bool(np.isfinite(wide).all())


def _is_dequantised(editor: GraphEditor, name: str) -> bool:
    node = editor.producer(name)
    return node is not None and any(
        is_op(node, "DequantizeLinear", domain=domain) for domain in ("", *MICROSOFT)
    )


def _refusal(editor: GraphEditor, node: onnx.NodeProto, spec: ConvSpec) -> str | None:
    if spec.params == 0:
        return f"its weight '{node.input[1]}' has no elements"
    name = bias_name(node)
    bias = None if name is None else editor.constant(name, defaults=True)
    if name is not None and bias is None:
        return f"its bias '{name}' is not constant"
    if not is_op(node, "Gemm"):
        return None
    if editor.opset < 7:
        return (
            f"Gemm of opset {editor.opset} is not supported; convert the model to opset 7 or later"
        )
    if bias is not None and (bias.size not in (1, spec.out_channels) or bias.ndim > 2):
        return f"its bias '{name}' differs from row to row"
    if bias is not None and bias.ndim == 2 and bias.shape[0] != 1:
        return f"its bias '{name}' differs from row to row"
    return None


def layer_weight(editor: GraphEditor, layer: Layer) -> NDArray[np.float64]:
    """Return a layer's weight as that of a Conv, with a Gemm's alpha in it.

    Parameters
    ----------
    editor : GraphEditor
        Of the model that the layer is in.
    layer : Layer
        One without a reason.

    Returns
    -------
    ndarray, shape (F, C / group, *kernel), float64
        A new array; ``(F, C)`` for a fully connected layer.

    Raises
    ------
    ValueError
        The weight is not constant.
    """
    weight = editor.constant(layer.weight, defaults=True)
    if weight is None:
        raise ValueError(f"the weight of layer '{layer.name}' is not constant")
    value = weight.astype(np.float64)
    if layer.op == "Gemm":
        value *= attribute(layer.node, "alpha", 1.0)
        if attribute(layer.node, "transB", 0):
            return value
    return value if layer.op == "Conv" else np.array(value.T, order="C")


def layer_bias(editor: GraphEditor, layer: Layer) -> NDArray[np.float64] | None:
    """Return a layer's bias, with a Gemm's beta in it, or None.

    Parameters
    ----------
    editor : GraphEditor
        Of the model that the layer is in.
    layer : Layer
        One without a reason.

    Returns
    -------
    ndarray, shape (F,), float64, or None
        A new array.

    Raises
    ------
    ValueError
        The bias is not constant.
    """
    if layer.bias is None or layer.spec is None:
        return None
    bias = editor.constant(layer.bias, defaults=True)
    if bias is None:
        raise ValueError(f"the bias of layer '{layer.name}' is not constant")
    value = bias.astype(np.float64).ravel()
    if layer.op == "Gemm":
        value *= attribute(layer.node, "beta", 1.0)
    return np.array(np.broadcast_to(value, (layer.spec.out_channels,)))
