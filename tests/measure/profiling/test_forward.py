from __future__ import annotations

from collections.abc import Callable

import onnx

from onnx_lowrank.measure.profiling import name_nodes

Build = Callable[..., onnx.ModelProto]


def test_names_are_made_unique(residual_net: Build) -> None:
    model = residual_net(1)
    for node in model.graph.node:
        node.name = ""
    model.graph.node[1].name = "a1"  # as the first node's output is called
    before = model.SerializeToString()
    named = name_nodes(model)
    assert model.SerializeToString() == before
    names = [node.name for node in named.graph.node]
    assert len(set(names)) == len(names)
    assert names[:3] == ["a1_2", "a1", "a3"]
