"""Layers that stay as they are: ops beyond Conv, Gemm and MatMul that multiply by weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from onnx_lowrank.graph.attributes import attribute
from onnx_lowrank.graph.check import Shape
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.graph.portable_layers import DOMAIN, describe, positions_of_factor
from onnx_lowrank.graph.specs import sizes_of

Shapes = Mapping[str, Shape]
Positions = Callable[[onnx.NodeProto, Shapes, int], "int | None"]

QUANTISED = "it is quantised; give the model as it was before quantisation"
_FUSED = "it is an op of onnxruntime's own; give the model as it was before optimisation"
_BLOCKED = (
    "onnxruntime optimised it for one machine; give the original, the model as it was before that"
)
LEFT = "its constant is on the left; only a constant on the right is approximated"
MICROSOFT = ("com.microsoft", "com.microsoft.experimental")
NCHWC = "com.microsoft.nchwc"
NHWC = ("com.ms.internal.nhwc", "com.microsoft.internal.nhwc")


@dataclass(frozen=True)
class ForeignOp:
    """How an op multiplies by weights, and why such a layer stays.

    Attributes
    ----------
    reason : str
        Why it cannot be approximated.
    weights : tuple of int
        Which of its inputs are weights.
    positions : callable
        From a node, the shapes of tensors and the index of a weight to how often one image
        multiplies by each of its numbers; None where that is unknown.
    product : bool
        Whether it is a layer only where one of `weights` is constant: else two activations meet.
    packed : callable, optional
        From a node to the number of weights where several share a number of the tensor.
    """

    reason: str
    weights: tuple[int, ...] = (1,)
    positions: Positions = lambda node, shapes, index: None
    product: bool = False
    packed: Callable[[onnx.NodeProto], int | None] | None = None


def foreign_op(node: onnx.NodeProto, shapes: Shapes) -> ForeignOp | None:
    """Return how a node multiplies by weights, or None if it does not, or is a usual layer.

    Conv, Gemm and MatMul of the standard domain are found here too, for their constant on the left.
    """
    if is_op(node):
        return _STANDARD.get(node.op_type)
    if node.domain in MICROSOFT:
        return _MICROSOFT.get(node.op_type)
    if node.domain == NCHWC:
        return _NCHWC if is_op(node, "Conv", domain=NCHWC) else None
    if node.domain in NHWC:
        found = _STANDARD.get(node.op_type) or _MICROSOFT.get(node.op_type)
        usual = found
        if usual is None and is_op(node, "Conv", domain=node.domain):
            usual = _FUSED_CONV
        return None if usual is None else replace(usual, reason=_BLOCKED, positions=_pixels_last)
    if node.domain == DOMAIN:
        found_here = describe(node, shapes)
        if found_here is not None:
            return ForeignOp(*found_here, positions=positions_of_factor)
    return None


def _shape(names: Sequence[str], index: int, shapes: Shapes) -> Shape | None:
    return shapes.get(names[index]) if index < len(names) else None


def _size(dims: Shape | None) -> int | None:
    sizes = None if dims is None else sizes_of(dims)
    return None if sizes is None else math.prod(sizes)


def _pixels(node: onnx.NodeProto, shapes: Shapes, index: int) -> int | None:
    shape = _shape(node.output, 0, shapes)
    return _size(shape[2:] if shape else None)


def _pixels_last(node: onnx.NodeProto, shapes: Shapes, index: int) -> int | None:
    shape = _shape(node.output, 0, shapes)
    return _size(shape[1:-1] if shape else None)


def _input_pixels(node: onnx.NodeProto, shapes: Shapes, index: int) -> int | None:
    shape = _shape(node.input, 0, shapes)
    return _size(shape[2:] if shape else None)


def _quantised_pixels(node: onnx.NodeProto, shapes: Shapes, index: int) -> int | None:
    last = attribute(node, "channels_last", 0)
    return (_pixels_last if last else _pixels)(node, shapes, index)


def _rows(left: int = 0, right: int = 1) -> Positions:
    """Return how many rows, or columns, of one image a constant operand meets."""

    def positions(node: onnx.NodeProto, shapes: Shapes, index: int) -> int | None:
        other = left if index == right else right
        shape = _shape(node.input, other, shapes)
        if shape is None:
            return None
        if len(shape) > 1 and attribute(node, "transA" if other == left else "transB", 0):
            shape = (*shape[:-2], shape[-1], shape[-2])
        if other == left:
            return _size(shape[1:-1])
        return _size(shape[1:] if len(shape) < 3 else (*shape[1:-2], shape[-1]))

    return positions


def _steps(node: onnx.NodeProto, shapes: Shapes, index: int) -> int | None:
    shape = _shape(node.input, 0, shapes)
    if shape is None or len(shape) != 3:
        return None
    return _size((shape[1 if attribute(node, "layout", 0) else 0],))


def _einsum(node: onnx.NodeProto, shapes: Shapes, index: int) -> int | None:
    """Return the product of the axes of the one activation that the weight does not have."""
    terms = attribute(node, "equation", "").replace(" ", "").split("->")[0].split(",")
    if len(terms) != 2 or len(node.input) != 2 or "." in terms[index]:
        return None
    other = 1 - index
    shape, labels = _shape(node.input, other, shapes), list(terms[other])
    if shape is None:
        return None
    if "." in labels:
        first = labels.index(".")
        labels[first : first + 3] = [f".{axis}" for axis in range(len(shape) - len(labels) + 3)]
    if len(labels) != len(shape) or not labels:
        return None
    # As elsewhere, the first axis of the activation is that of the images.
    axes = [(label, size) for label, size in zip(labels, shape, strict=True)]
    images = labels[0] if labels[0] not in terms[index] else None
    return _size(tuple(s for label, s in axes if label not in terms[index] and label != images))


def _matrix(node: onnx.NodeProto) -> int | None:
    rows, columns = attribute(node, "K", None), attribute(node, "N", None)
    return None if rows is None or columns is None else int(rows) * int(columns)


def _alone(op: str) -> str:
    return f"no scheme approximates the op {op}"


_FUSED_CONV = ForeignOp(_FUSED, positions=_pixels)
_NCHWC = ForeignOp(_BLOCKED, positions=_pixels)
_RECURRENT = {op: ForeignOp(_alone(op), (1, 2), positions=_steps) for op in ("LSTM", "GRU", "RNN")}
_STANDARD: Mapping[str, ForeignOp] = {
    "Gemm": ForeignOp(LEFT, (0,), _rows(), product=True),
    "MatMul": ForeignOp(LEFT, (0,), _rows(), product=True),
    "ConvTranspose": ForeignOp(_alone("ConvTranspose"), positions=_input_pixels),
    "DeformConv": ForeignOp(_alone("DeformConv"), positions=_pixels),
    "CausalConvWithState": ForeignOp(_alone("CausalConvWithState"), positions=_pixels),
    "ConvInteger": ForeignOp(QUANTISED, positions=_pixels),
    "QLinearConv": ForeignOp(QUANTISED, (3,), _pixels),
    "MatMulInteger": ForeignOp(QUANTISED, (0, 1), _rows(), product=True),
    "QLinearMatMul": ForeignOp(QUANTISED, (0, 3), _rows(0, 3), product=True),
    "Einsum": ForeignOp("it is an Einsum; export it as a MatMul", (0, 1), _einsum, product=True),
    **_RECURRENT,
}
_PRODUCT = ForeignOp(_FUSED, (0, 1), _rows(), product=True)
_LEFT_QUANTISED = ForeignOp(QUANTISED, (0, 1), _rows(), product=True)
_PACKED = ForeignOp(QUANTISED, (1, 2, 3), _rows(), packed=_matrix)
_MICROSOFT: Mapping[str, ForeignOp] = {
    **dict.fromkeys(("FusedConv", "ConvTransposeWithDynamicPads"), _FUSED_CONV),
    **dict.fromkeys(("NhwcConv", "NhwcFusedConv"), replace(_FUSED_CONV, positions=_pixels_last)),
    "ConvTransposeWithDynamicPads": replace(_FUSED_CONV, positions=_input_pixels),
    "QLinearConv": ForeignOp(QUANTISED, (3,), _quantised_pixels),
    "WordConvEmbedding": ForeignOp(_FUSED),
    **dict.fromkeys(
        ("FusedGemm", "FusedMatMul", "FusedMatMulActivation", "TransposeMatMul", "GemmFastGelu"),
        _PRODUCT,
    ),
    "SparseToDenseMatMul": replace(_PRODUCT, weights=(0, 1)),
    **dict.fromkeys(
        ("MatMulInteger16", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "GemmFloat8"),
        _LEFT_QUANTISED,
    ),
    "QGemm": ForeignOp(QUANTISED, (0, 3), _rows(0, 3), product=True),
    "QOrderedMatMul": ForeignOp(QUANTISED, (0, 2), _rows(0, 2), product=True),
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4"), _PACKED),
    "MatMulFpQ4": ForeignOp(QUANTISED, packed=_matrix),
    "DynamicQuantizeLSTM": ForeignOp(QUANTISED, (1, 2), _steps),
    "AttnLSTM": ForeignOp(_FUSED, (1, 2), _steps),
    **dict.fromkeys(
        ("Attention", "PackedAttention", "DecoderMaskedSelfAttention"),
        ForeignOp(_FUSED, (1,), _rows(), product=True),
    ),
    "LongformerAttention": ForeignOp(_FUSED, (1, 4), product=True),
    "DecoderAttention": ForeignOp(_FUSED, (2, 3), product=True),
    "QAttention": ForeignOp(QUANTISED, (1,), _rows()),
    "QOrderedAttention": ForeignOp(QUANTISED, (5, 6, 7), product=True),
    "QOrderedLongformerAttention": ForeignOp(QUANTISED, (2,), product=True),
    "MoE": ForeignOp(_FUSED, (2, 4, 6)),
    "QMoE": ForeignOp(QUANTISED, (2, 5, 8)),
}
