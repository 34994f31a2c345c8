"""A part of a model: from tensors that are known to one that is wanted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.edit import all_names, reads


@dataclass(frozen=True)
class Region:
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


def find_region(model: onnx.ModelProto, end: str, known: Collection[str]) -> Region:
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
    return Region(end, tuple(starts), frozenset(nodes))


def extract_region(
    model: onnx.ModelProto, region: Region, values: Mapping[str, NDArray[Any]]
) -> onnx.ModelProto:
    """Return a region as a model of its own, its nodes and weights copied.

    A node with several outputs may be in a region for one of them while another is known, such as
    a Split of which one part was computed before. The known one is then read as an input, and what
    the node itself makes of it goes by a name that nothing reads.

    Parameters
    ----------
    model : onnx.ModelProto
        The model; not changed.
    region : Region
        Of this model, with at least one node.
    values : mapping of str to ndarray
        A value of every start, for its type and number of axes: their lengths are left open.
    """
    # `onnx.utils.Extractor` does not see what the bodies of If and Loop read from outside, refuses
    # sparse weights and tensors without value_info, and makes a known output of a Split again.
    graph = model.graph
    nodes = _without_outputs(
        [graph.node[place] for place in sorted(region.nodes)], region.starts, graph
    )
    used = {name for node in nodes for name in reads(node)}
    given = set(region.starts)
    initializers = [t for t in graph.initializer if t.name in used - given]
    inputs = [
        helper.make_tensor_value_info(
            name, _element_type(values[name].dtype), [None] * values[name].ndim
        )
        for name in region.starts
    ]
    if model.ir_version < 4:  # which demands it
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in initializers]
    part = helper.make_graph(
        nodes,
        graph.name,
        inputs,
        [onnx.ValueInfoProto(name=region.end)],
        initializers,
        sparse_initializer=[t for t in graph.sparse_initializer if t.values.name in used - given],
    )
    cut = helper.make_model(part, opset_imports=model.opset_import, functions=model.functions)
    cut.ir_version = model.ir_version
    return cut


def _without_outputs(
    nodes: Sequence[onnx.NodeProto], known: Collection[str], graph: onnx.GraphProto
) -> list[onnx.NodeProto]:
    """Return the nodes, copied where one has an output that is known: renamed there.

    It is not left out: most outputs are not optional, and how many a Split has says what it does.
    """
    taken: set[str] | None = None
    found = []
    for node in nodes:
        if not set(node.output).isdisjoint(known):
            taken = set(all_names(graph)) if taken is None else taken
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            for index, name in enumerate(node.output):
                if name in known:
                    copy.output[index] = _free_name(f"{name}.again", taken)
            node = copy
        found.append(node)
    return found


def _free_name(base: str, taken: set[str]) -> str:
    name = next(n for n in chain([base], (f"{base}{i}" for i in count())) if n not in taken)
    taken.add(name)
    return name


def _element_type(dtype: np.dtype[Any]) -> int:
    if dtype.kind in "USO":  # texts, however numpy stores them
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(dtype))
