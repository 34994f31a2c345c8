"""Let portable nodes apply the activation behind them: one pass over the data less."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper

from onnx_lowrank.graph.edit import GraphEditor, carry_notes
from onnx_lowrank.graph.layers import attribute
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.rewriting.lowering.functions import ACTIVATING, DOMAIN, can_activate
from onnx_lowrank.rewriting.passes.base import PassResult


class FuseActivationPass:
    """Fuse Relu, Clip with constant bounds, and LeakyRelu into the portable node in front of them.

    A node computes ``slope(clip(x))``, so bounds join bounds, and a slope follows bounds; nothing
    follows a slope. Fused is only what nobody else reads, of models whose opset has a body for it.
    """

    name = "fuse-activation"

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Rewrite `model` in place."""
        editor = GraphEditor(model)
        changes = []
        if not can_activate(editor.opset):
            return PassResult(modified=False)
        for node in list(model.graph.node):
            if not is_op(node, *ACTIVATING, domain=DOMAIN):
                continue
            while (reader := _only_reader(editor, node)) and (
                fused := _fused(editor, node, reader)
            ):
                for name, value in fused.items():
                    _set(node, name, value)
                _bypass(editor, node, reader)
                changes.append(f"{node.name}: applies {reader.op_type} itself")
        editor.remove_dead()
        return PassResult(bool(changes), tuple(changes))


def _only_reader(editor: GraphEditor, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the one node that reads a node's output, if nothing else sees it."""
    readers = editor.consumers(node.output[0])
    if len(readers) != 1 or editor.is_graph_output(node.output[0]):
        return None
    reader = readers[0]
    if not is_op(reader) or list(reader.input).count(node.output[0]) != 1:
        return None
    return reader if reader.input[0] == node.output[0] else None


def _fused(
    editor: GraphEditor, node: onnx.NodeProto, reader: onnx.NodeProto
) -> dict[str, float] | None:
    """Return the node's attributes with the activation of its reader, or None if that is none."""
    if attribute(node, "alpha", 1.0) != 1.0:
        return None
    if is_op(reader, "LeakyRelu"):
        return {"alpha": float(attribute(reader, "alpha", 0.01))}
    bounds = _bounds(editor, reader)
    if bounds is None or not bounds[0] <= bounds[1]:
        return None
    low, high = (
        min(max(attribute(node, name, 0.0), bounds[0]), bounds[1]) for name in ("min", "max")
    )
    return {"min": low, "max": high}


def _bounds(editor: GraphEditor, node: onnx.NodeProto) -> tuple[float, float] | None:
    if is_op(node, "Relu"):
        return 0.0, math.inf
    if not is_op(node, "Clip"):
        return None
    if editor.opset < 11:  # bounds were attributes
        low, high = (
            attribute(node, name, sign * math.inf) for name, sign in (("min", -1), ("max", 1))
        )
        return float(low), float(high)
    found = []
    for index, default in ((1, -math.inf), (2, math.inf)):
        name = node.input[index] if len(node.input) > index else ""
        value = editor.constant(name) if name else default
        if value is None:
            return None
        found.append(float(np.asarray(value).item()))
    return found[0], found[1]


def _set(node: onnx.NodeProto, name: str, value: float) -> None:
    for each in node.attribute:
        if each.name == name:
            each.CopyFrom(helper.make_attribute(name, value))


def _bypass(editor: GraphEditor, node: onnx.NodeProto, reader: onnx.NodeProto) -> None:
    """Let the node write what its reader wrote, under the reader's name."""
    result = reader.output[0]
    carry_notes(reader, node)
    editor.remove(reader)
    editor.rename(node.output[0], result)
