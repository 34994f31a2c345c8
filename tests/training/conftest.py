"""What the tests here share: torch is optional, and results are compared with onnxruntime."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Torch takes one thread: several that wait for each other slow down what runs beside them."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


@pytest.fixture
def one_op() -> Callable[..., onnx.ModelProto]:
    """Give a function that builds a model of one node from arrays: the first is its input."""

    def build(
        op: str, arrays: list[Any], *, opset: int = 13, outputs: int = 1, **attributes: Any
    ) -> onnx.ModelProto:
        names = [f"i{index}" if array is not None else "" for index, array in enumerate(arrays)]
        node = helper.make_node(op, names, ["y"], name="node", **attributes)
        first = np.asarray(arrays[0])
        graph = helper.make_graph(
            [node],
            "net",
            [
                helper.make_tensor_value_info(
                    "i0", helper.np_dtype_to_tensor_dtype(first.dtype), first.shape
                )
            ],
            [onnx.ValueInfoProto(name="y")],
            [
                onnx.numpy_helper.from_array(np.asarray(array), name)
                for name, array in zip(names[1:], arrays[1:], strict=True)
                if array is not None
            ],
        )
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(model)
        kind = {v.name: v for v in (*inferred.graph.value_info, *inferred.graph.output)}["y"]
        model.graph.output[0].CopyFrom(kind)
        return model

    return build
