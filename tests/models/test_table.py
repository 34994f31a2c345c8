from __future__ import annotations

import numpy as np
import onnx
import table
from onnx import TensorProto, helper, numpy_helper


def test_count_follows_the_formulas() -> None:
    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.ones(shape, np.float32), name)

    graph = helper.make_graph(
        [
            # 8 outputs of 5 x 6 from 8x12 at stride 2, groups of 2 channels, a 3x5 kernel
            helper.make_node("Conv", ["x", "w"], ["c"], group=2, strides=[2, 2], pads=[2, 2, 2, 2]),
            helper.make_node("GlobalAveragePool", ["c"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("MatMul", ["f", "m"], ["y"]),
            helper.make_node("Reshape", ["v", "s"], ["r"]),
            helper.make_node("Gemm", ["y", "r"], ["z"], transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, "H", "W"])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 3])],
        [
            weight("w", 8, 2, 3, 5),
            weight("m", 8, 7),
            weight("v", 3, 7, 1, 1),
            numpy_helper.from_array(np.array([3, 7]), "s"),
        ],
    )
    opset = helper.make_opsetid("", 13)
    model = helper.make_model(graph, ir_version=8, opset_imports=[opset])
    expected = 8 * 5 * 6 * 2 * 3 * 5 + 8 * 7 + 7 * 3
    assert table.count(model, (1, 4, 8, 12)) == ("1 x 4 x 8 x 12", 1, 2, expected)
