"""Which layers read what others write: where a change of layout between two of them is paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.graph.check import infer_shapes
from onnx_lowrank.graph.layers import Layer
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.search.knapsack import Conflict

# Ops that onnxruntime computes in the layout of its Convs, so that they pass it on.
_PASSING = (
    *("Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "Add", "Sum", "Mul"),
    *("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "Concat", "Identity"),
    "BatchNormalization",
)


Mask = NDArray[np.bool_]
Sizes = tuple[int, ...]
Sides = tuple[Mask, Mask]
"""For every candidate of a layer, the layer first, whether it reads, and writes, plain tensors."""


@dataclass
class Edge:
    """A tensor, and the layers at its ends.

    Attributes
    ----------
    producer : str or None
        The layer whose values it holds, perhaps activated, pooled or added to others; None for
        what is no layer.
    readers : list of str
        The layers that read it.
    read_plainly : bool
        Whether anything else reads it, or it is an output of the model.
    shape : tuple of int
        Its sizes.
    """

    producer: str | None
    shape: Sizes
    readers: list[str] = field(default_factory=list)
    read_plainly: bool = False


def edges(
    model: onnx.ModelProto, layers: Sequence[Layer], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Edge, ...]:
    """Return the tensors of four axes that layers, or a layer and something else, hand over.

    Parameters
    ----------
    model : onnx.ModelProto
        The model.
    layers : sequence of Layer
        Those that may have a layout of their own.
    shapes : mapping of str to tuple of int
        Sizes of all inputs.
    """
    known = infer_shapes(model, input_shapes=shapes)
    names = {tuple(layer.node.output): layer.name for layer in layers}
    constants = {tensor.name for tensor in model.graph.initializer}
    sources: dict[str, frozenset[str | None]] = {}
    found: dict[tuple[str | None, str], Edge] = {}

    def read(tensor: str, reader: str | None) -> None:
        sizes = known.get(tensor)
        if sizes is None or len(sizes) != 4 or not all(isinstance(size, int) for size in sizes):
            return
        for producer in sources.get(tensor, frozenset({None})):
            if producer is None and reader is None:
                continue
            shape = tuple(int(size) for size in sizes if isinstance(size, int))
            edge = found.setdefault((producer, tensor), Edge(producer, shape))
            if reader is None:
                edge.read_plainly = True
            elif reader not in edge.readers:
                edge.readers.append(reader)

    for node in model.graph.node:
        inputs = [name for name in node.input if name and name not in constants]
        layer = names.get(tuple(node.output))
        if layer is not None:
            read(node.input[0], layer)
            given: frozenset[str | None] = frozenset({layer})
        elif is_op(node, *_PASSING):
            given = frozenset().union(*(sources.get(name, frozenset({None})) for name in inputs))
        else:
            for name in inputs:
                read(name, None)
            given = frozenset({None})
        sources.update(dict.fromkeys(node.output, given))
    for output in model.graph.output:
        read(output.name, None)
    return tuple(found.values())


def conflicts(
    between: Sequence[Edge],
    sides: Mapping[str, Sides],
    names: Sequence[str],
    reorders: Mapping[Sizes, float],
) -> tuple[Conflict, ...]:
    """Return what is paid where a tensor is written in one layout and read in another.

    A tensor is reordered once, however many read it. What is no layer reads and writes plain
    tensors.

    Parameters
    ----------
    between : sequence of Edge
        The tensors.
    sides : mapping of str to (ndarray of bool, ndarray of bool)
        By layer; of one that stays as it is, for the layer alone.
    names : sequence of str
        The layers that can be replaced, in the order of the picks.
    reorders : mapping of tuple of int to float
        Seconds to reorder a tensor one way, by its sizes.
    """
    places = {name: place for place, name in enumerate(names)}
    found = []
    for edge in between:
        if not (cost := reorders.get(edge.shape, 0.0)):
            continue
        plain = np.array([True]) if edge.producer is None else sides[edge.producer][1]
        for writes, reads_otherwise in (
            (~plain, [(name, sides[name][0]) for name in edge.readers]),
            (plain, [(name, ~sides[name][0]) for name in edge.readers]),
        ):
            others = [(places[n], mask) for n, mask in reads_otherwise if n in places]
            always = any(mask[0] for name, mask in reads_otherwise if name not in places)
            if edge.read_plainly and writes is not plain:
                always = True
            if edge.producer not in places:
                if writes[0] and others and not always:
                    found.append(Conflict(cost, None, tuple(others)))
            elif always:
                found.append(Conflict(cost, None, ((places[edge.producer], writes),)))
            elif others:
                found.append(Conflict(cost, (places[edge.producer], writes), tuple(others)))
    return tuple(found)
