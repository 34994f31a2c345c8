"""Move channel permutations into neighbouring weights: no Gather is left where none is needed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import attribute
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.graph.storage import can_permute, permute
from onnx_lowrank.rewriting.lowering.permutation import (
    Permutation,
    inverse,
    is_identity,
    is_permutation,
)
from onnx_lowrank.rewriting.passes.base import PassResult, Refusal

# Ops with one data input that treat every channel alike, so that a permutation passes through them.
_ACTIVATIONS = {
    "Relu",
    "LeakyRelu",
    "Clip",
    "Sigmoid",
    "HardSigmoid",
    "Tanh",
    "Elu",
    "Selu",
    "Celu",
}
_ACTIVATIONS |= {"Softplus", "Softsign", "HardSwish", "Mish", "Gelu", "Abs", "Neg", "Exp", "Erf"}
_POOLS = {"MaxPool", "AveragePool", "LpPool"}
_POOLS |= {"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"}
CHANNELWISE = _ACTIVATIONS | _POOLS | {"Identity", "Dropout", "Cast"}


@dataclass(frozen=True)
class _Reader:
    """A node that can take its channels in another order, and the tensor that it reads."""

    node: onnx.NodeProto
    tensor: str


class AbsorbPermutationsPass:
    """Remove the Gathers of lowering where a neighbour can take the other order exactly.

    For a Gather ``y[i] = x[p[i]]`` on the channel axis:

    1. Every use of y, directly or through channelwise ops, is a Conv of group 1 (the columns of its
       weight are permuted) or another such Gather (the two are composed).
    2. x comes, directly or through channelwise ops that nobody else reads, from a Conv whose groups
       p maps onto themselves (the rows of its weight and bias are permuted).

    Weights keep their storage: what is permuted is the stored tensor, as of `graph.storage`. One
    that others read too, or that is computed in another way, keeps its order, and the Gather stays.

    Other Gathers stay and are listed. Tensors whose channels change order get new names: a name
    stands for a value.

    Parameters
    ----------
    layers : collection of str
        The layers that were lowered; only Gathers named ``<layer>/...`` are touched.
    """

    name = "absorb-permutations"

    def __init__(self, layers: Collection[str]) -> None:
        self.layers = tuple(layers)

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Rewrite `model` in place."""
        editor = GraphEditor(model)
        changes, refusals = [], []
        prefixes = tuple(f"{layer}/" for layer in self.layers)
        # A copy: the graph changes. A Gather composed into a later one is seen again there.
        for node in [n for n in model.graph.node if n.name.startswith(prefixes)]:
            permutation = _channel_permutation(editor, node)
            if permutation is None:
                continue
            if is_identity(permutation):
                _bypass(editor, node)
                changes.append(f"{node.name}: in order already")
            elif readers := _readers(editor, node.output[0]):
                _permute_readers(editor, node, readers, permutation)
                changes.append(f"{node.name}: absorbed by what reads it")
            elif (writer := _writer(editor, node)) and _keeps_groups(editor, writer, permutation):
                _permute_writer(editor, node, writer, permutation)
                changes.append(f"{node.name}: absorbed by what writes it")
            else:
                refusals.append(
                    Refusal(node.name, "a neighbour needs this order of channels: the Gather stays")
                )
        editor.remove_dead()
        return PassResult(bool(changes), tuple(changes), tuple(refusals))


def _channel_permutation(editor: GraphEditor, node: onnx.NodeProto) -> Permutation | None:
    if not is_op(node, "Gather") or attribute(node, "axis", 0) != 1:
        return None
    indices = editor.constant(node.input[1])
    if indices is None or indices.ndim != 1 or not is_permutation(indices, indices.size):
        return None
    return indices.astype(np.int64)


def _readers(editor: GraphEditor, tensor: str) -> list[_Reader]:
    """Return all that reads `tensor` through channelwise ops; nothing if any needs its order."""
    found: list[_Reader] = []
    pending = [tensor]
    while pending:
        name = pending.pop()
        nodes = editor.consumers(name)
        if editor.is_graph_output(name) or not nodes:
            return []
        for node in nodes:
            if list(node.input).count(name) != 1 or node.input[0] != name:
                return []
            if is_op(node, *CHANNELWISE) and not any(node.output[1:]):
                pending.append(node.output[0])
            elif _takes_columns(editor, node) or _channel_permutation(editor, node) is not None:
                found.append(_Reader(node, name))
            else:
                return []
    return found


def _takes_columns(editor: GraphEditor, node: onnx.NodeProto) -> bool:
    return (
        is_op(node, "Conv")
        and attribute(node, "group", 1) == 1
        and can_permute(editor, node, 1, axis=1)
    )


def _permute_readers(
    editor: GraphEditor, gather: onnx.NodeProto, readers: list[_Reader], permutation: Permutation
) -> None:
    for reader in readers:
        if is_op(reader.node, "Conv"):
            permute(editor, reader.node, 1, 1, inverse(permutation))
            continue
        old = editor.constant(reader.node.input[1])
        assert old is not None
        name = editor.add_initializer(reader.node.input[1], permutation[old])
        editor.set_input(reader.node, 1, name)
    _rename_between(editor, gather.output[0], {reader.node.output[0] for reader in readers})
    _bypass(editor, gather)


def _rename_between(editor: GraphEditor, tensor: str, stops: set[str]) -> None:
    """Give new names to all that is computed from `tensor`, up to the nodes that write `stops`."""
    pending, between = [tensor], list[str]()
    while pending:
        found = [n.output[0] for n in editor.consumers(pending.pop()) if n.output[0] not in stops]
        pending += found
        between += found
    for name in between:
        editor.rename(name, editor.unique_name(f"{name}.permuted"))


def _writer(editor: GraphEditor, gather: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the Conv whose rows the Gather reorders, if nobody else sees them on the way."""
    tensor = gather.input[0]
    while True:
        node = editor.producer(tensor)
        if node is None or editor.is_graph_output(tensor) or len(editor.consumers(tensor)) != 1:
            return None
        if is_op(node, "Conv"):
            return node
        if not is_op(node, *CHANNELWISE) or any(node.output[1:]):
            return None
        tensor = node.input[0]


def _keeps_groups(editor: GraphEditor, conv: onnx.NodeProto, permutation: Permutation) -> bool:
    slots = [slot for slot, name in enumerate(conv.input) if slot and name]
    if not all(can_permute(editor, conv, slot, axis=0) for slot in slots):
        return False
    size = permutation.size // attribute(conv, "group", 1)
    return bool(np.array_equal(permutation // size, np.arange(permutation.size) // size))


def _permute_writer(
    editor: GraphEditor, gather: onnx.NodeProto, conv: onnx.NodeProto, permutation: Permutation
) -> None:
    for slot, name in enumerate(conv.input):
        if slot and name:
            permute(editor, conv, slot, 0, permutation)
    tensor = gather.input[0]
    while True:
        node = editor.producer(tensor)
        assert node is not None
        above = node.input[0]
        editor.rename(tensor, editor.unique_name(f"{tensor}.permuted"))
        if node is conv:
            break
        tensor = above
    _bypass(editor, gather)


def _bypass(editor: GraphEditor, gather: onnx.NodeProto) -> None:
    """Let everything read the Gather's input in its place; a graph output keeps its name."""
    source, result = gather.input[0], gather.output[0]
    editor.remove(gather)
    if editor.is_graph_output(result):
        editor.rename(source, result)
        return
    for node in list(editor.consumers(result)):
        for index, name in enumerate(node.input):
            if name == result:
                editor.set_input(node, index, source)
