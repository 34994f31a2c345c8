"""A digest of what a model computes."""

from __future__ import annotations

import onnx

from onnx_lowrank.cache import key_of


def model_digest(model: onnx.ModelProto) -> str:
    """Return a key of what a model computes, part by part: it may be beyond protobuf's 2 GB."""
    key = ""
    graph = model.graph
    for parts in (
        model.opset_import,
        model.functions,
        graph.input,
        graph.output,
        graph.node,
        graph.initializer,
        graph.sparse_initializer,
    ):
        key = key_of(key, len(parts))
        for part in parts:
            key = key_of(key, part.SerializeToString(deterministic=True))
    return key
