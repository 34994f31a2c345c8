"""Which part of a model a node that onnxruntime executed belongs to.

onnxruntime fuses, renames and adds nodes before it runs a model. What it does to names, as seen in
its profiles and optimised models:

1. An untouched node, and a Conv with a folded BatchNormalization, Add or Mul, keeps its name.
2. A node in the blocked layout is called ``<tensor>_nchwc`` after what it used to write
   (``<tensor>_bn_nchwc`` if it was a BatchNormalization, which becomes a Conv); if a sum is fused
   into it later, that is no longer what it writes.
3. A fused activation makes ``fused <name>``; a MatMul with its Add becomes
   ``<name>/MatMulAddFusion``.
4. ReorderInput, ReorderOutput, Transpose, Cast and Memcpy nodes are added under new names. They
   read or write tensors of the model, or lie between nodes that do.
5. ``_token_<number>`` (and, in older versions, ``_<number>``) keeps names apart.
6. Nodes of an inlined function have new names; the last of them write what the call wrote.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from onnx_lowrank.graph.ops import is_op

if TYPE_CHECKING:
    import onnx

# What belongs to the layer before it, whether onnxruntime fuses it or not.
_AFTER_LAYERS = """
BatchNormalization Identity Dropout Relu LeakyRelu PRelu Clip Sigmoid HardSigmoid Tanh Elu Selu Celu
Softplus Softsign HardSwish Mish Gelu ThresholdedRelu
"""
AFTER_LAYERS = frozenset(_AFTER_LAYERS.split())
# A bias or a scale, if the other operand is constant.
SHIFTS = frozenset({"Add", "Sub", "Mul", "Div"})
# What onnxruntime fuses into the layer ahead of it.
_PASSED = AFTER_LAYERS | SHIFTS | {"Sum"}
# What a layer's own arithmetic is called before and after fusion.
_LAYER_OPS = re.compile(r"(Conv|Gemm|MatMul)")
_DECORATION = re.compile(r"^(?:fused )*(.*?)(?:/MatMulAddFusion)?(?:_token_\d+)?\Z", re.DOTALL)
_BLOCKED = re.compile(r"^(.*)_nchwc(?:_token_\d+|_\d+)?\Z", re.DOTALL)


def assign_rows(
    graph: onnx.GraphProto, layers: Mapping[str, str], owners: Collection[str] = ()
) -> dict[str, str]:
    """Assign every node of a model to a row of its profile.

    1. A layer's node has the row of that layer.
    2. A node called ``<owner>/...`` has the row of that owner: it came from that layer.
    3. What follows a row of either kind and only shifts, scales, normalises or bends its values
       belongs to it, so that a row means the same whether that was fused or not.
    4. Any other node is a row by itself.

    Parameters
    ----------
    graph : onnx.GraphProto
        A graph in which every node has a name of its own.
    layers : mapping of str to str
        Name of a layer's node -> name of its row.
    owners : collection of str
        Names of the layers of the model that this one was made from.

    Returns
    -------
    dict of str to str
        Name of a node -> name of its row, in graph order.
    """
    constants = {t.name for t in graph.initializer}
    constants.update(o for n in graph.node if is_op(n, "Constant") for o in n.output)
    longest_first = sorted(owners, key=len, reverse=True)
    layer_rows = {*layers.values(), *owners}
    row_of_tensor: dict[str, str] = {}
    rows: dict[str, str] = {}
    for node in graph.node:
        row = next((o for o in longest_first if node.name.startswith(f"{o}/")), None)
        row = row or layers.get(node.name)
        if row is None:
            data = [name for name in node.input if name and name not in constants]
            before = row_of_tensor.get(data[0]) if len(data) == 1 else None
            follows = is_op(node, *AFTER_LAYERS, *SHIFTS)
            row = before if follows and before in layer_rows else node.name
        rows[node.name] = row
        row_of_tensor.update(dict.fromkeys(node.output, row))
    return rows


def attribute(
    model: onnx.GraphProto,
    optimised: onnx.GraphProto,
    rows: Mapping[str, str],
    layer_rows: Collection[str],
) -> dict[str, str | None]:
    """Assign every node of an optimised model to a row of the model it was made from.

    Parameters
    ----------
    model : onnx.GraphProto
        The graph given to onnxruntime, in which every node has a name of its own.
    optimised : onnx.GraphProto
        What onnxruntime made of it.
    rows : mapping of str to str
        The result of `assign_rows` for `model`.
    layer_rows : collection of str
        The rows that stand for a layer.

    Returns
    -------
    dict of str to (str or None)
        Name of an optimised node -> name of its row; None where neither names nor tensors tell.
    """
    nodes = {node.name: node for node in model.node}
    producers = {output: node for node in model.node for output in node.output if output}
    found: dict[str, str | None] = {}
    taken: set[str] = set()
    for node in optimised.node:
        end = _origin(node, nodes, producers)
        if end is None:
            found[node.name] = None
            continue
        row = rows[end.name]
        if row not in layer_rows and _LAYER_OPS.search(node.op_type):
            # The arithmetic of a layer under the name of what was fused behind it, such as a sum.
            behind = _layers_behind(end, producers, rows, layer_rows, stops=set(node.input))
            row = next((r for r in behind if r not in taken), row)
        found[node.name] = row
        taken.add(row)
    _spread(optimised, found)
    return found


def _origin(
    node: onnx.NodeProto,
    nodes: Mapping[str, onnx.NodeProto],
    producers: Mapping[str, onnx.NodeProto],
) -> onnx.NodeProto | None:
    """Return the last node of the model that `node` does the work of, by its name or outputs."""
    if node.name in nodes:
        return nodes[node.name]
    if blocked := _BLOCKED.match(node.name):
        for tensor in (blocked[1], blocked[1].removesuffix("_bn")):
            if tensor in producers:
                return producers[tensor]
    if (plain := _DECORATION.match(node.name)) and plain[1] in nodes:
        return nodes[plain[1]]
    return next((producers[output] for output in node.output if output in producers), None)


def _layers_behind(
    end: onnx.NodeProto,
    producers: Mapping[str, onnx.NodeProto],
    rows: Mapping[str, str],
    layer_rows: Collection[str],
    *,
    stops: Collection[str],
) -> list[str]:
    """Return the rows of the nearest layers that only sums and activations part from `end`.

    The search does not go beyond the tensors `stops`.
    """
    found: dict[str, None] = {}
    pending, seen = [end], {end.name}
    while pending:
        node = pending.pop(0)
        if rows[node.name] in layer_rows:
            found[rows[node.name]] = None
            continue
        if not is_op(node, *_PASSED):
            continue
        for name in node.input:
            before = None if name in stops else producers.get(name)
            if before is not None and before.name not in seen:
                seen.add(before.name)
                pending.append(before)
    return list(found)


def _spread(optimised: onnx.GraphProto, found: dict[str, str | None]) -> None:
    """Give nodes without an origin the row of what reads them, or else of what they read."""
    readers: dict[str, list[str]] = {}
    writers = {output: node.name for node in optimised.node for output in node.output}
    for node in optimised.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.name)
    for node in reversed(optimised.node):
        if found[node.name] is None:
            after = (found[r] for output in node.output for r in readers.get(output, ()))
            found[node.name] = next((row for row in after if row is not None), None)
    for node in optimised.node:
        if found[node.name] is None:
            before = (found.get(writers.get(name, "")) for name in node.input)
            found[node.name] = next((row for row in before if row is not None), None)
