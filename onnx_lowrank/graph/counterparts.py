"""Shapes behind ops of onnxruntime's own: by the standard op whose output has the same shape."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from onnx_lowrank.graph.attributes import attribute
from onnx_lowrank.graph.check import LARGE, Shape, infer_shapes
from onnx_lowrank.graph.without_weights import split_weights

_POOLS = ("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool")
_SAME_SHAPE = (
    *("Gelu", "FastGelu", "QuickGelu", "BiasGelu", "QLinearSigmoid", "QLinearLeakyRelu"),
    *("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
    *("QuantizeLinear", "DequantizeLinear"),
)
# Op -> the standard op, and which of the inputs it takes.
_COUNTERPARTS: Mapping[str, Mapping[str, tuple[str, tuple[int, ...]]]] = {
    "com.microsoft.nchwc": {
        "Conv": ("Conv", (0, 1, 2)),
        "ReorderInput": ("Identity", (0,)),
        "ReorderOutput": ("Identity", (0,)),
        **{pool: (pool, (0,)) for pool in _POOLS},
    },
    "com.microsoft": {
        **dict.fromkeys(_SAME_SHAPE, ("Identity", (0,))),
        "FusedConv": ("Conv", (0, 1, 2)),
        "FusedGemm": ("Gemm", (0, 1, 2)),
        "FusedMatMul": ("MatMul", (0, 1)),
        "GemmFastGelu": ("MatMul", (0, 1)),
        "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
        "MatMulIntegerToFloat": ("MatMul", (0, 1)),
        "QGemm": ("Gemm", (0, 3)),
        "QLinearAdd": ("Add", (0, 3)),
        "QLinearMul": ("Mul", (0, 3)),
        "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
        "QLinearAveragePool": ("AveragePool", (0,)),
    },
}
# They make an output of another shape than the counterpart's.
_CHANGES = ("channels_last", "transBatchA", "transBatchB")


def shapes_for_costs(
    model: onnx.ModelProto,
    shapes: Mapping[str, Shape],
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Mapping[str, Shape]:
    """Return shapes that costs can be counted by, also behind ops that inference does not know.

    Parameters
    ----------
    model : onnx.ModelProto
        Any model; not changed.
    shapes : mapping
        What `infer_shapes` gives; it goes first.
    input_shapes : mapping, optional
        Shapes of inputs, in place of the model's own.
    """
    if not any(_counterpart(node) for node in model.graph.node):
        return shapes
    copy, _ = split_weights(model, above=LARGE)
    for node in copy.graph.node:
        found = _counterpart(node)
        if found is not None:
            op, indices = found
            inputs = [node.input[index] for index in indices if index < len(node.input)]
            node.op_type, node.domain = op, ""
            del node.input[:]
            node.input.extend(inputs)
    return {**infer_shapes(copy, input_shapes), **shapes}


def _counterpart(node: onnx.NodeProto) -> tuple[str, tuple[int, ...]] | None:
    found = _COUNTERPARTS.get(node.domain, {}).get(node.op_type)
    if found is None or any(attribute(node, name, 0) for name in _CHANGES):
        return None
    if found[0] == "MatMul" and (attribute(node, "transA", 0) or attribute(node, "transB", 0)):
        return None
    return found
