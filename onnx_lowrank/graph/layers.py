"""The layers of a model that could be approximated: Conv, Gemm, and MatMul by a constant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.graph.check import infer_shapes
from onnx_lowrank.graph.edit import GraphEditor, _bodies

OPS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Layer:
    """One layer: what it is called, what it computes, and why it cannot be approximated, if so."""

    name: str
    op: str
    node: onnx.NodeProto
    spec: ConvSpec | None
    dtype: np.dtype[Any]
    reason: str | None


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return an attribute's value, or `default` where it is omitted."""
    for each in node.attribute:
        if each.name == name:
            return helper.get_attribute_value(each)
    return default


def find_layers(
    model: onnx.ModelProto, *, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[Layer, ...]:
    """List the layers in graph order."""
    editor = GraphEditor(model)
    shapes = infer_shapes(model, input_shapes)
    taken: set[str] = set()
    layers = []
    for node in model.graph.node:
        if node.op_type in OPS and node.domain in ("", "ai.onnx"):
            if node.op_type == "MatMul" and editor.constant(node.input[1]) is None:
                continue
            name = node.name if node.name and node.name not in taken else node.output[0]
            taken.add(name)
            layers.append(_layer(editor, shapes, node, name))
        for body in _bodies(node):
            where = f"it is inside {node.op_type} node '{node.name}', whose bodies are left alone"
            layers += [
                Layer(n.name or n.output[0], n.op_type, n, None, np.dtype(np.float32), where)
                for n in _nodes(body)
                if n.op_type in OPS
            ]
    return tuple(layers)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for body in _bodies(node):
            yield from _nodes(body)


def _layer(
    editor: GraphEditor, shapes: Mapping[str, Any], node: onnx.NodeProto, name: str
) -> Layer:
    weight = editor.constant(node.input[1])
    if weight is None:
        return Layer(name, node.op_type, node, None, np.dtype(np.float32), "its weight is not constant")
    bias = node.input[2] if len(node.input) > 2 else ""
    reason = None
    if weight.dtype.kind != "f":
        reason = f"its weight has type {weight.dtype}"
    elif bias and editor.constant(bias) is None:
        reason = "its bias is not constant"
    x, y = shapes.get(node.input[0]), shapes.get(node.output[0])
    if node.op_type == "Conv":
        spec = _conv_spec(node, weight, bool(bias), x, y)
    else:
        if node.op_type == "Gemm" and attribute(node, "transA", 0):
            reason = reason or "its input is transposed (transA)"
        if weight.ndim != 2:
            return Layer(name, node.op_type, node, None, weight.dtype, "its weight is not a matrix")
        size = _sizes(x[1:-1]) if x else None
        transposed = node.op_type == "Gemm" and attribute(node, "transB", 0)
        f, c = weight.shape if transposed else weight.shape[::-1]
        spec = ConvSpec(
            in_channels=c, out_channels=f, kernel=(), strides=(), dilations=(), pads=(),
            bias=bool(bias), input_size=size, output_size=size,
        )
    return Layer(name, node.op_type, node, spec, weight.dtype, reason)


def _conv_spec(node: onnx.NodeProto, weight: NDArray[Any], bias: bool, x: Any, y: Any) -> ConvSpec:
    axes, group = weight.ndim - 2, int(attribute(node, "group", 1))
    pad = attribute(node, "auto_pad", b"NOTSET")
    return ConvSpec(
        in_channels=weight.shape[1] * group,
        out_channels=weight.shape[0],
        kernel=weight.shape[2:],
        strides=tuple(attribute(node, "strides", (1,) * axes)),
        dilations=tuple(attribute(node, "dilations", (1,) * axes)),
        pads=tuple(attribute(node, "pads", (0,) * (2 * axes))),
        auto_pad=pad.decode() if isinstance(pad, bytes) else pad,
        group=group,
        bias=bias,
        input_size=_sizes(x[2:]) if x else None,
        output_size=_sizes(y[2:]) if y else None,
    )


def _sizes(dims: Any) -> tuple[int, ...] | None:
    return tuple(dims) if all(isinstance(d, int) for d in dims) else None


def layer_weight(editor: GraphEditor, layer: Layer) -> NDArray[np.float64]:
    """Return a layer's weight as that of a Conv, ``(F, C / group, *kernel)``, float64."""
    weight = editor.constant(layer.node.input[1])
    assert weight is not None
    value = weight.astype(np.float64)
    if layer.op == "Conv":
        return value
    if layer.op == "Gemm":
        value = value * attribute(layer.node, "alpha", 1.0)
        if attribute(layer.node, "transB", 0):
            return value
    return value.T


def layer_bias(editor: GraphEditor, layer: Layer) -> NDArray[np.float64] | None:
    """Return a layer's bias, ``(F,)``, float64, or None."""
    if len(layer.node.input) < 3 or not layer.node.input[2]:
        return None
    bias = editor.constant(layer.node.input[2])
    assert bias is not None and layer.spec is not None
    scale = attribute(layer.node, "beta", 1.0) if layer.op == "Gemm" else 1.0
    return np.broadcast_to(bias.astype(np.float64).ravel() * scale, (layer.spec.out_channels,))
