"""A digest of what a model computes."""

from __future__ import annotations

import hashlib

import onnx


def model_digest(model: onnx.ModelProto) -> bytes:
    """Return a hash of what a model computes, part by part: it may be beyond protobuf's 2 GB."""
    digest = hashlib.sha256()
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
        digest.update(f"{len(parts)};".encode())
        for part in parts:
            digest.update(part.SerializeToString(deterministic=True))
    return digest.digest()
