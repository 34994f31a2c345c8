"""Models of one layer each, dense or replaced, to be timed against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_lowrank.cache import key_of
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import Layer
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.rewriting.lowering.functions import DOMAIN
from onnx_lowrank.rewriting.rewrite import replace_layers
from onnx_lowrank.search.candidate import Candidate


def single_layer_model(model: onnx.ModelProto, layer: Layer, *, batch: int) -> onnx.ModelProto:
    """Cut one layer out of a model, with a Relu behind it as in a network.

    Parameters
    ----------
    model : onnx.ModelProto
        The model, its weights constant; not changed.
    layer : Layer
        One with known sizes and without a reason.
    batch : int
        Samples at once.

    Returns
    -------
    onnx.ModelProto
        From ``x`` to ``y``; the node keeps its name.
    """
    spec = layer.spec
    assert spec is not None
    editor = GraphEditor(model)
    node = onnx.NodeProto()
    node.CopyFrom(layer.node)
    node.name = layer.name
    node.input[0] = "x"
    node.output[0] = "dense"
    initializers = []
    for name in dict.fromkeys(name for name in node.input[1:] if name):
        value = editor.constant(name)
        assert value is not None
        initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    element = helper.np_dtype_to_tensor_dtype(layer.dtype)
    shapes = []
    ends = ((spec.in_channels, spec.input_size), (spec.out_channels, spec.output_size))
    for channels, size in ends:
        assert size is not None
        inner = [*size, channels] if layer.op == "MatMul" else [channels, *size]
        shapes.append([batch, *inner])
    graph = helper.make_graph(
        [node, helper.make_node("Relu", ["dense"], ["y"])],
        "layer",
        [helper.make_tensor_value_info("x", element, shapes[0])],
        [helper.make_tensor_value_info("y", element, shapes[1])],
        initializers,
    )
    single = helper.make_model(graph, opset_imports=model.opset_import)
    single.ir_version = model.ir_version
    return single


def replaced(single: onnx.ModelProto, candidate: Candidate) -> onnx.ModelProto:
    """Return a copy of a model of one layer with the layer replaced."""
    return replace_layers(single, {candidate.fit.layer: candidate.replacement})[0]


def structure(model: onnx.ModelProto) -> str:
    """Return a key of what decides a model's speed: all but names and values of weights.

    In what order a Gather or a portable node takes channels is a value too: it depends on the fit.
    """
    graph = model.graph
    orders = {node.input[1] for node in graph.node if is_op(node, "Gather")}
    orders |= {name for node in graph.node if is_op(node, domain=DOMAIN) for name in node.input}
    names: dict[str, str] = {}

    def plain(name: str) -> str:
        return names.setdefault(name, str(len(names))) if name else ""

    lines = [str(sorted((o.domain, o.version) for o in model.opset_import))]
    for value in graph.input:
        lines.append(f"{plain(value.name)} {value.type.SerializeToString(deterministic=True)!r}")
    for tensor in graph.initializer:
        # Small integers are shapes and axes: they are structure, not weights.
        counts = tensor.data_type == 7 and tensor.name not in orders
        values = numpy_helper.to_array(tensor).tolist() if counts else ""
        lines.append(f"{plain(tensor.name)} {tensor.data_type} {list(tensor.dims)} {values}")
    for node in graph.node:
        attributes = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
        ends = [plain(n) for n in node.input], [plain(n) for n in node.output]
        lines.append(f"{node.domain} {node.op_type} {attributes!r} {ends!r}")
    return key_of(*lines)


def layer_feeds(single: onnx.ModelProto, *, seed: int) -> Mapping[str, NDArray[Any]]:
    """Return random inputs as behind a Relu: half of them zero, the others positive."""
    tensor = single.graph.input[0].type.tensor_type
    shape = [d.dim_value for d in tensor.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    values = np.random.default_rng(seed).standard_normal(shape)
    return {"x": np.maximum(values, 0).astype(dtype)}
