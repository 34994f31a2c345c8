"""What the nodes that take a layer's place have to do: operations, bytes, calls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.graph.attributes import attribute
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.graph.subgraph_builder import SubgraphBuilder
from onnx_lowrank.graph.without_weights import split_weights
from onnx_lowrank.rewriting.form import Form
from onnx_lowrank.rewriting.lowering.functions import DOMAIN
from onnx_lowrank.schemes.base import Factors

BLOCK = 16  # channels that a convolution computes at once: fewer take as long
"""As `SearchSettings.channel_blocks`."""


@dataclass(frozen=True)
class Work:
    """What one node does.

    Attributes
    ----------
    kind : str
        Nodes of one kind take time alike: Conv by kernel, matrix products, nodes of one op.
    macs : float
        Multiply-adds of one image, output channels in whole blocks.
    moved : float
        Bytes of the tensors that it reads and writes.
    weights : float
        Bytes of its weights.
    """

    kind: str
    macs: float
    moved: float
    weights: float


def work_of(factors: Factors, conv: ConvSpec, form: Form, macs: int) -> tuple[Work, ...]:
    """Return what the nodes of a structure do in the place of a layer, for one image.

    Parameters
    ----------
    factors : Factors
        Of the structure; values do not matter.
    conv : ConvSpec
        The layer; its sizes are known.
    form : Form
        How the structure is written.
    macs : int
        Its multiply-adds.
    """
    builder = SubgraphBuilder("layer", np.dtype(np.float32))
    form.lower(factors, conv, np.zeros(conv.out_channels) if conv.bias else None, builder)
    graph = builder.export()
    size = conv.input_size or ()
    shape = [1, conv.in_channels, *size] if conv.kernel else [*(size or (1,)), conv.in_channels]
    sizes = _sizes(graph, shape)
    weights = {tensor.name for tensor in graph.initializer}
    bytes_of = {name: 4.0 * math.prod(sizes) for name, sizes in sizes.items()}
    found = []
    for node in graph.node:
        constants = {name for name in node.input if name in weights}
        ends = [name for name in (*node.input, *node.output) if name not in constants]
        ours = is_op(node, domain=DOMAIN)
        kind, done = (node.op_type, float(macs)) if ours else _operations(node, sizes)
        moved, kept = (sum(bytes_of.get(x, 0.0) for x in names) for names in (ends, constants))
        found.append(Work(kind, done, moved, kept))
    return tuple(found)


def _sizes(graph: onnx.GraphProto, shape: list[int]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a subgraph's tensors, as far as they can be inferred."""
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, shape))
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(DOMAIN, 1)]
    light, _ = split_weights(helper.make_model(graph, opset_imports=opsets), above=1024)
    inferred = onnx.shape_inference.infer_shapes(light).graph
    values: Iterable[onnx.ValueInfoProto] = (*inferred.input, *inferred.value_info)
    found = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
    return {**found, **{tensor.name: tuple(tensor.dims) for tensor in light.graph.initializer}}


def _operations(node: onnx.NodeProto, sizes: Mapping[str, tuple[int, ...]]) -> tuple[str, float]:
    """Return the kind and the multiply-adds of a standard op; its weight is its second input."""
    if is_op(node, "Conv"):
        out_channels, in_channels, *kernel = sizes[node.input[1]]
        positions = math.prod(sizes.get(node.output[0], (0, 0, 0))[2:])
        group = int(attribute(node, "group", 1))
        each = out_channels if group > 1 else math.ceil(out_channels / BLOCK) * BLOCK
        macs = float(positions * each * in_channels * math.prod(kernel))
        if group > 1:
            return "Conv by groups", macs
        return "Conv 1x1" if math.prod(kernel) == 1 else "Conv", macs
    if is_op(node, "MatMul", "Gemm"):
        rows = math.prod(sizes.get(node.input[0], (0,))[:-1])
        return "product", float(rows * math.prod(sizes[node.input[1]]))
    return "other", 0.0
