"""The stored form of a weight: its elements change places, its type and size stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.ops import is_op

LONGEST_CHAIN = 8  # nodes between a stored constant and its reader


@dataclass(frozen=True)
class _Stored:
    """A constant as the graph stores it, and the axis of it that is to be permuted."""

    reader: onnx.NodeProto
    slot: int
    value: NDArray[Any]
    axis: int


def can_permute(editor: GraphEditor, node: onnx.NodeProto, slot: int, axis: int) -> bool:
    """Whether `permute` can be called."""
    return _stored(editor, node, slot, axis) is not None


def permute(
    editor: GraphEditor, node: onnx.NodeProto, slot: int, axis: int, order: NDArray[np.int64]
) -> None:
    """Permute the elements of a constant that a node reads, and leave it stored as it is.

    1. An initializer, or the value of a Constant, that nothing else reads is permuted.
    2. Behind Cast, Transpose and DequantizeLinear, what they read is; of the last one the scales
       and zero points too, where there is one for each element along the axis.

    Anything else, and what others read too, cannot be permuted without storing it once more or in
    another type. Tensors whose elements change places get new names: a name stands for a value.

    Parameters
    ----------
    editor : GraphEditor
        Of the model.
    node : onnx.NodeProto
        A node of it.
    slot : int
        Which of its inputs.
    axis : int
        Axis of the constant as the node reads it.
    order : ndarray, shape (size,), int64
        Element i comes from place ``order[i]``.
    """
    found = _stored(editor, node, slot, axis)
    assert found is not None
    for each in found:
        name = each.reader.input[each.slot]
        permuted = np.take(each.value, order, axis=each.axis)
        editor.set_input(each.reader, each.slot, editor.add_initializer(name, permuted))
    while (maker := editor.producer(node.input[slot])) is not None:
        editor.rename(maker.output[0], editor.unique_name(f"{maker.output[0]}.permuted"))
        node, slot = maker, 0


def _stored(
    editor: GraphEditor, node: onnx.NodeProto, slot: int, axis: int, depth: int = 0
) -> list[_Stored] | None:
    """Return what must be permuted to permute an input of a node; None where that cannot be."""
    name = node.input[slot]
    alone = [id(n) for n in editor.consumers(name)] == [id(node)]
    if not alone or list(node.input).count(name) != 1 or editor.is_graph_output(name):
        return None
    maker = editor.producer(name)
    if depth > LONGEST_CHAIN:
        return None
    if maker is None or (is_op(maker, "Constant") and maker.attribute[0].name == "value"):
        value = editor.constant(name)
        if value is None or axis >= value.ndim:
            return None
        return [_Stored(node, slot, value, axis)]
    if is_op(maker, "Cast"):
        return _stored(editor, maker, 0, axis, depth + 1)
    if is_op(maker, "Transpose"):
        axes = next((list(a.ints) for a in maker.attribute if a.name == "perm"), None)
        value = editor.constant(name)
        if value is None:
            return None
        axes = axes or list(range(value.ndim))[::-1]
        return _stored(editor, maker, 0, axes[axis], depth + 1)
    if is_op(maker, "DequantizeLinear"):
        return _quantised(editor, maker, axis, depth + 1)
    return None


def _quantised(
    editor: GraphEditor, node: onnx.NodeProto, axis: int, depth: int
) -> list[_Stored] | None:
    found = _stored(editor, node, 0, axis, depth)
    scale = editor.constant(node.input[1])
    given = {each.name: each.i for each in node.attribute}
    if found is None or scale is None or scale.ndim > 1 or given.get("block_size", 0):
        return None
    along = given.get("axis", 1)
    along += found[0].value.ndim if along < 0 else 0
    if scale.size == 1 or along != axis:
        return found
    for slot in range(1, len(node.input)):
        if node.input[slot]:
            more = _stored(editor, node, slot, 0)
            if more is None:
                return None
            found += more
    return found
