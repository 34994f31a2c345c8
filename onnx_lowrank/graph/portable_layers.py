"""The package's own nodes in a model: layers that were replaced already."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

from onnx_lowrank.graph.attributes import attribute
from onnx_lowrank.graph.check import Shape
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.graph.specs import sizes_of

DOMAIN = "onnx_lowrank"
_BLOCKS = {"Tucker2Conv": ("Tucker-2", "ranks"), "CPConv": ("CP", "rank")}


def describe(
    node: onnx.NodeProto, shapes: Mapping[str, Shape]
) -> tuple[str, tuple[int, ...]] | None:
    """Return what a node of this domain is, as the reason why it stays, and its factors' inputs.

    None for a node that is no layer, such as LRN.
    """
    if is_op(node, "MonochromaticConv", domain=DOMAIN):
        return f"already low-rank (monochromatic, {attribute(node, 'colours', '?')} colours)", (
            1,
            2,
        )
    if not is_op(node, *_BLOCKS, domain=DOMAIN) or len(node.input) < 6:
        return None
    name, noun = _BLOCKS[node.op_type]
    rows, columns = (int(attribute(node, f"{end}put_groups", 1)) for end in ("in", "out"))
    ranks = _ranks(node, shapes, rows, columns)
    what = f"{name}, {noun} {' and '.join(map(str, ranks))}" if ranks else name
    if rows * columns > 1:
        what = f"{rows} x {columns} blocks of {what}"
    return f"already low-rank ({what})", (2, 3, 5)


def _ranks(
    node: onnx.NodeProto, shapes: Mapping[str, Shape], rows: int, columns: int
) -> tuple[int, ...]:
    """Return the ranks of one block, from the shapes of the first and the last factor."""
    first, last = (sizes_of(shapes.get(node.input[index], ())) for index in (2, 5))
    if not first or not last or min(rows, columns) < 1:
        return ()
    ranks = (first[0] // (rows * columns), last[1] // rows if len(last) > 1 else 0)
    return ranks if is_op(node, "Tucker2Conv", domain=DOMAIN) else ranks[:1]


def positions_of_factor(
    node: onnx.NodeProto, shapes: Mapping[str, Shape], index: int
) -> int | None:
    """Return at how many positions of one image a factor is applied: the first at those of X."""
    first = index == (1 if is_op(node, "MonochromaticConv", domain=DOMAIN) else 2)
    shape = shapes.get(node.input[0] if first else node.output[0])
    sizes = None if shape is None else sizes_of(shape[2:])
    return None if sizes is None else math.prod(sizes)
