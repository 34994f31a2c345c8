"""Which layers read what others write: where a change of layout between two of them is paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from onnx_lowrank.graph.check import infer_shapes
from onnx_lowrank.graph.layers import Layer
from onnx_lowrank.graph.ops import is_op

# Ops that onnxruntime computes in the layout of its Convs, so that they pass it on.
_PASSING = (
    *("Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "Add", "Sum", "Mul"),
    *("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "Concat", "Identity"),
)


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
    shape: tuple[int, ...]
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
