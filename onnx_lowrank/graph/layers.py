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
from onnx_lowrank.graph.check import Shape, infer_shapes
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.guard import reading
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.graph.skeleton import bodies

OPS = ("Conv", "Gemm", "MatMul")
TYPES = ("float16", "bfloat16", "float32", "float64")  # of weights that can be rewritten

_QUANTISED = "it is quantised; give the model as it was before quantisation"
_FUSED = "it is an op of onnxruntime's own; give the model as it was before optimisation"
_FOREIGN = {
    "QLinearConv": _QUANTISED,
    "ConvInteger": _QUANTISED,
    "QGemm": _QUANTISED,
    "FusedConv": _FUSED,
    "NhwcFusedConv": _FUSED,
    "FusedGemm": _FUSED,
}


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
        What it computes; None where the model does not tell.
    dtype : numpy.dtype
        Type of the weight; float32 where it is unknown.
    reason : str or None
        Why it cannot be approximated at all, as a sentence without its full stop.
    """

    name: str
    op: str
    node: onnx.NodeProto
    spec: ConvSpec | None
    dtype: np.dtype[Any]
    reason: str | None

    @property
    def weight(self) -> str:
        """Name of the weight tensor."""
        return str(self.node.input[1])

    @property
    def bias(self) -> str | None:
        """Name of the bias tensor, or None."""
        return _bias(self.node)


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return an attribute's value, a text as str, or `default` where it is omitted."""
    for each in node.attribute:
        if each.name == name:
            value = helper.get_attribute_value(each)
            return value.decode() if isinstance(value, bytes) else value
    return default


@reading("listing its layers")
def find_layers(
    model: onnx.ModelProto, *, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[Layer, ...]:
    """List the layers in graph order.

    Listed are Conv, Gemm and MatMul by a constant of the main graph; those inside the bodies of If,
    Loop and Scan and inside model-local functions, and quantised and fused forms, with the reason
    why they stay.

    Parameters
    ----------
    model : onnx.ModelProto
        Any model; not changed.
    input_shapes : mapping of str to tuple of int, optional
        Shapes of inputs, in place of the model's own.

    Raises
    ------
    ModelError
        An input shape does not fit the model.
    """
    editor = GraphEditor(model)
    shapes = infer_shapes(model, input_shapes)
    taken: set[str] = set()
    names = {
        id(node): _unique(taken, node.name, node.output[0])
        for node in model.graph.node
        if _is_layer(editor, node)
    }
    layers = []
    for node in model.graph.node:
        if id(node) in names:
            layers.append(_layer(editor, shapes, node, names[id(node)]))
        place = node.name or (node.output[0] if node.output else "")
        for branch, body in bodies(node):
            where = f"the {branch} of {node.op_type} node '{place}'"
            for inner in _inner_layers(editor, body.node, {t.name for t in body.initializer}):
                name = _unique(taken, *_candidates(inner, f"{place}/{branch}"))
                layers.append(_kept(inner, name, f"it is inside {where}; bodies are left alone"))
    for function in model.functions:
        for inner in _inner_layers(editor, function.node, set()):
            name = _unique(taken, *_candidates(inner, function.name))
            where = f"the model-local function '{function.name}'"
            layers.append(_kept(inner, name, f"it is inside {where}; functions are left alone"))
    return tuple(layers)


def _is_layer(editor: GraphEditor, node: onnx.NodeProto) -> bool:
    if node.op_type in _FOREIGN:
        return True
    if not is_op(node, *OPS):
        return False
    return not is_op(node, "MatMul") or _is_constant(editor, node.input[1])


def _is_constant(editor: GraphEditor, name: str) -> bool:
    # An initializer is not looked at: copying all weights of a model takes a while.
    if editor.initializer(name) is not None:
        return True
    return editor.constant(name, defaults=True) is not None


def _inner_layers(editor: GraphEditor, nodes: Any, constants: set[str]) -> Iterator[onnx.NodeProto]:
    """Yield the layers of a body or function, at any depth."""
    known = constants | {n.output[0] for n in nodes if is_op(n, "Constant")}
    for node in nodes:
        if is_op(node, "MatMul"):
            found = node.input[1] in known or _is_constant(editor, node.input[1])
        else:
            found = is_op(node, "Conv", "Gemm") or node.op_type in _FOREIGN
        if found:
            yield node
        for _, body in bodies(node):
            yield from _inner_layers(editor, body.node, known | {t.name for t in body.initializer})


def _candidates(node: onnx.NodeProto, place: str) -> tuple[str, ...]:
    return (node.name, node.output[0], f"{place}/{node.name or node.output[0]}")


def _unique(taken: set[str], *candidates: str) -> str:
    """Return the first name that is not taken, or the last one with a number, and take it."""
    name = next((c for c in candidates if c and c not in taken), "")
    number = 1
    while not name or name in taken:
        name, number = f"{candidates[-1]}_{number}", number + 1
    taken.add(name)
    return name


def _kept(node: onnx.NodeProto, name: str, reason: str) -> Layer:
    return Layer(name, node.op_type, node, None, np.dtype(np.float32), reason)


def _layer(
    editor: GraphEditor, shapes: Mapping[str, Shape], node: onnx.NodeProto, name: str
) -> Layer:
    if node.op_type in _FOREIGN:
        return _kept(node, name, _FOREIGN[node.op_type])
    weight = node.input[1]
    tensor = editor.initializer(weight)
    value = None if tensor is not None else editor.constant(weight, defaults=True)
    if tensor is not None:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        shape: Shape | None = tuple(tensor.dims)
    else:
        dtype = np.dtype(np.float32) if value is None else value.dtype
        shape = shapes.get(weight) if value is None else value.shape
    reason = None
    if tensor is None and value is None:
        reason = f"its weight '{weight}' is not constant"
    elif dtype.name not in TYPES:
        reason = f"its weight '{weight}' is of type {dtype.name}, not floating-point"
    if all(_is_dequantised(editor, each) for each in node.input[:2]):
        reason = _QUANTISED
    if shape is None or not all(isinstance(size, int) for size in shape):
        return Layer(name, node.op_type, node, None, dtype, reason)
    sizes = tuple(size for size in shape if isinstance(size, int))
    x, y = shapes.get(node.input[0]), shapes.get(node.output[0])
    spec = _conv_spec(node, sizes, x, y) if node.op_type == "Conv" else _fc_spec(node, sizes, x)
    if spec is None:
        reason = reason or f"its weight '{weight}' is of rank {len(sizes)}"
    else:
        reason = reason or _refusal(editor, node, spec)
    return Layer(name, node.op_type, node, spec, dtype, reason)


def _is_dequantised(editor: GraphEditor, name: str) -> bool:
    node = editor.producer(name)
    return node is not None and is_op(node, "DequantizeLinear")


def _refusal(editor: GraphEditor, node: onnx.NodeProto, spec: ConvSpec) -> str | None:
    name = _bias(node)
    bias = None if name is None else editor.constant(name, defaults=True)
    if name is not None and bias is None:
        return f"its bias '{name}' is not constant"
    if node.op_type != "Gemm":
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


def _conv_spec(
    node: onnx.NodeProto, weight: tuple[int, ...], x: Shape | None, y: Shape | None
) -> ConvSpec | None:
    axes, group = len(weight) - 2, int(attribute(node, "group", 1))
    if axes < 1:
        return None
    return ConvSpec(
        in_channels=weight[1] * group,
        out_channels=weight[0],
        kernel=weight[2:],
        strides=tuple(attribute(node, "strides", (1,) * axes)),
        dilations=tuple(attribute(node, "dilations", (1,) * axes)),
        pads=tuple(attribute(node, "pads", (0,) * (2 * axes))),
        auto_pad=attribute(node, "auto_pad", "NOTSET"),
        group=group,
        bias=_bias(node) is not None,
        input_size=_sizes(x[2:]) if x and len(x) == axes + 2 else None,
        output_size=_sizes(y[2:]) if y and len(y) == axes + 2 else None,
    )


def _fc_spec(node: onnx.NodeProto, weight: tuple[int, ...], x: Shape | None) -> ConvSpec | None:
    if len(weight) != 2:
        return None
    is_gemm = node.op_type == "Gemm"
    transposed = is_gemm and attribute(node, "transB", 0)
    rows, columns = weight if transposed else weight[::-1]
    # The rows of one image: every axis of a MatMul but the first and the last; a Gemm has no more.
    size = () if is_gemm else None if x is None else _sizes(x[1:-1])
    return ConvSpec(
        in_channels=columns,
        out_channels=rows,
        kernel=(),
        strides=(),
        dilations=(),
        pads=(),
        bias=is_gemm and _bias(node) is not None,
        input_size=size,
        output_size=size,
    )


def _sizes(dims: Shape) -> tuple[int, ...] | None:
    sizes = tuple(size for size in dims if isinstance(size, int))
    return sizes if len(sizes) == len(dims) else None


def _bias(node: onnx.NodeProto) -> str | None:
    return str(node.input[2]) if len(node.input) > 2 and node.input[2] else None


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
