"""Topological order of nodes."""

from __future__ import annotations

from typing import Any

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.edit import reads


def sort_nodes(nodes: Any) -> bool:
    """Bring nodes into topological order, those that are in order first; return if that moved any.

    What nodes of one list do not write comes from outside.

    Parameters
    ----------
    nodes : repeated field of NodeProto
        Changed in place.

    Raises
    ------
    ModelError
        Nodes form a circle.
    """
    makers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    needs = [
        [makers[name] for name in dict.fromkeys(reads(node)) if name in makers] for node in nodes
    ]
    if all(before < place for place, found in enumerate(needs) for before in found):
        return False
    order: dict[int, None] = {}
    for start in range(len(needs)):
        pending, waiting = [start], set[int]()
        while pending:
            place = pending[-1]
            missing = [before for before in needs[place] if before not in order]
            if place in order or not missing:
                order[place] = None
                waiting.discard(place)
                pending.pop()
            elif place in waiting:
                node = nodes[place]
                raise ModelError(
                    f"node '{node.name or node.op_type}' waits for its own output; "
                    "export the model again"
                )
            else:
                waiting.add(place)
                pending += missing
    copies = [nodes[place] for place in order]
    moved = [type(node).FromString(node.SerializeToString()) for node in copies]
    del nodes[:]
    nodes.extend(moved)
    return True
