"""The layout that onnxruntime's CPU provider gives to Convs, and what leaving it costs.

onnxruntime computes float32 Convs on blocks of channels, and reorders tensors where such nodes meet
others (its graph transformer for NCHWc; the two ops are in a domain of its own).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.runtime.session import open_session

DOMAIN = "com.microsoft.nchwc"


def reordered_ends(model: onnx.ModelProto) -> tuple[bool, bool]:
    """Return whether onnxruntime reorders the input, and the output, of a model of one of each.

    Parameters
    ----------
    model : onnx.ModelProto
        The model.

    Raises
    ------
    ModelError, ProviderError
        As of `open_session`.
    """
    graph = _optimised(model).graph
    read = [n.input[0] for n in graph.node if is_op(n, "ReorderInput", domain=DOMAIN)]
    written = [n.output[0] for n in graph.node if is_op(n, "ReorderOutput", domain=DOMAIN)]
    return graph.input[0].name in read, graph.output[0].name in written


def reordering_model(shape: Sequence[int]) -> onnx.ModelProto:
    """Return a model that reorders a float32 tensor ``(N, C, H, W)``, and back.

    The number of channels is rounded up to a multiple of 4: onnxruntime reorders no others.
    """
    shape = _rounded(shape)
    nodes = [
        helper.make_node("ReorderInput", ["x"], ["blocks"], domain=DOMAIN),
        helper.make_node("ReorderOutput", ["blocks"], ["y"], domain=DOMAIN, channels=shape[1]),
    ]
    return _model(nodes, shape, helper.make_tensor_value_info("y", TensorProto.FLOAT, shape))


def idle_model(shape: Sequence[int]) -> onnx.ModelProto:
    """Return a model that reads nothing of a float32 tensor ``(N, C, H, W)`` but its shape."""
    shape = _rounded(shape)
    node = helper.make_node("Shape", ["x"], ["y"])
    return _model([node], shape, helper.make_tensor_value_info("y", TensorProto.INT64, [4]))


def _rounded(shape: Sequence[int]) -> list[int]:
    batch, channels, *size = shape
    return [batch, -(-channels // 4) * 4, *size]


def _model(
    nodes: Sequence[onnx.NodeProto], shape: Sequence[int], output: onnx.ValueInfoProto
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "layout", [x], [output])
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _optimised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model as onnxruntime runs it on the CPU of this machine."""
    with tempfile.TemporaryDirectory(prefix="onnx_lowrank-") as folder:
        path = Path(folder, "optimised.onnx")

        def configure(options: Any) -> None:
            options.optimized_model_filepath = os.fspath(path)
            options.log_severity_level = 3  # it warns that the file is of this machine alone

        open_session(model, configure=configure)
        return onnx.load(path)
