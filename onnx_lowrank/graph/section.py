"""A part of a model: from tensors that are known to one that is wanted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.edit import reads


@dataclass(frozen=True)
class Section:
    """What it takes to compute one tensor from others.

    Attributes
    ----------
    end : str
        The tensor.
    starts : tuple of str
        The known tensors that it is computed from, in the order they are met.
    nodes : frozenset of int
        Places in the graph of the nodes in between; none where `end` itself is known.
    """

    end: str
    starts: tuple[str, ...]
    nodes: frozenset[int]


def find_section(model: onnx.ModelProto, end: str, known: Collection[str]) -> Section:
    """Find the way back from a tensor to known ones and to weights.

    Parameters
    ----------
    model : onnx.ModelProto
        The model; not changed.
    end : str
        Name of the wanted tensor.
    known : collection of str
        Names of known tensors, all of the model's inputs among them.

    Raises
    ------
    ModelError
        The model has no such tensor.
    """
    graph = model.graph
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {sparse.values.name for sparse in graph.sparse_initializer}
    nodes: set[int] = set()
    starts: dict[str, None] = {}
    seen: set[str] = set()
    waiting = [end]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in known:
            starts[name] = None
        elif name in makers:
            if makers[name] not in nodes:
                nodes.add(makers[name])
                waiting += reads(graph.node[makers[name]])
        elif name not in weights:
            raise ModelError(
                f"the model has no tensor '{name}'; a compressed form of a model keeps its names"
            )
    return Section(end, tuple(starts), frozenset(nodes))


def cut_section(
    model: onnx.ModelProto, section: Section, values: Mapping[str, NDArray[Any]]
) -> onnx.ModelProto:
    """Return a section as a model of its own, its nodes and weights copied.

    Parameters
    ----------
    model : onnx.ModelProto
        The model; not changed.
    section : Section
        Of this model, with at least one node.
    values : mapping of str to ndarray
        A value of every start, for its type and number of axes: their lengths are left open.
    """
    graph = model.graph
    nodes = [graph.node[place] for place in sorted(section.nodes)]
    used = {name for node in nodes for name in reads(node)}
    inputs = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(np.dtype(values[name].dtype)),
            [None] * values[name].ndim,
        )
        for name in section.starts
    ]
    end = onnx.ValueInfoProto(name=section.end)
    part = helper.make_graph(
        nodes,
        graph.name,
        inputs,
        [end],
        [t for t in graph.initializer if t.name in used],
        sparse_initializer=[t for t in graph.sparse_initializer if t.values.name in used],
    )
    cut = helper.make_model(part, opset_imports=model.opset_import, functions=model.functions)
    cut.ir_version = model.ir_version
    return cut
