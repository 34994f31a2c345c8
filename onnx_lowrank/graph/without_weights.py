"""A model without the data of its large weights: small enough to copy, to check, to infer on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import onnx
from onnx import TensorProto, helper

_NARROW = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
_NARROW |= {"FLOAT6E2M3": 6, "FLOAT6E3M2": 6}
# Which of them there are depends on the version of onnx.
_BITS = {kind: _NARROW[name] for name, kind in TensorProto.DataType.items() if name in _NARROW}


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Return the number of bytes of a tensor's values in raw form, by its type and dimensions.

    Zero for a type that does not exist: the checker says what is wrong with it.
    """
    bits = _BITS.get(tensor.data_type)
    if bits is None:
        try:
            bits = 8 * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
        except KeyError:
            return 0
    return int(-(-math.prod(tensor.dims) * bits // 8))


def split_weights(
    model: onnx.ModelProto, *, above: int
) -> tuple[onnx.ModelProto, list[tuple[onnx.TensorProto, onnx.TensorProto]]]:
    """Return a copy of a model without the data of its large initializers.

    Parameters
    ----------
    model : onnx.ModelProto
        Any model; not changed.
    above : int
        Size in bytes from which on an initializer of the main graph loses its data in the copy.

    Returns
    -------
    light : onnx.ModelProto
        The copy; large initializers have name, type and dimensions only.
    pairs : list of (TensorProto, TensorProto)
        Every large initializer of `model`, with its counterpart in the copy.
    """
    light = onnx.ModelProto()
    _copy_fields(model, light, without="graph")
    _copy_fields(model.graph, light.graph, without="initializer")
    pairs = []
    for tensor in model.graph.initializer:
        copy = light.graph.initializer.add()
        if tensor.data_type == TensorProto.STRING or tensor_bytes(tensor) < above:
            copy.CopyFrom(tensor)
            continue
        for field in ("name", "data_type", "doc_string"):  # absent stays absent, byte for byte
            if tensor.HasField(field):
                setattr(copy, field, getattr(tensor, field))
        copy.dims.extend(tensor.dims)
        pairs.append((tensor, copy))
    return light, pairs


def _copy_fields(source: Any, target: Any, *, without: str) -> None:
    for field, value in source.ListFields():
        if field.name == without:
            continue
        if hasattr(value, "ListFields"):
            getattr(target, field.name).CopyFrom(value)
        elif hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        else:
            setattr(target, field.name, value)


def bodies(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """Yield the graphs inside a node (branches of If, bodies of Loop and Scan) with their names."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.name, attribute.g
        for graph in attribute.graphs:
            yield attribute.name, graph


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor with values: initializers and attributes, in bodies and functions too."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for _, body in bodies(node):
            yield from _graph_tensors(body)
