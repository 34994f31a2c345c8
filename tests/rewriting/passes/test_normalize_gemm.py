from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser

import onnx_lowrank
from onnx_lowrank.graph.layers import attribute
from onnx_lowrank.rewriting.passes.normalize_gemm import NormalizeGemmPass


def net(attributes: str, bias: bool) -> onnx.ModelProto:
    model = parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[24,N] x) => (float[N,16] y) {{
            [fc] y = Gemm<transA=1{attributes}>(x, w{", b" if bias else ""})
        }}
        """
    )
    rng = np.random.default_rng(0)
    shape = (16, 24) if "transB=1" in attributes else (24, 16)
    weight = rng.standard_normal(shape).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    if bias:
        value = rng.standard_normal(16).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, "b"))
    return model


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


X = np.random.default_rng(1).standard_normal((24, 5)).astype(np.float32)


def test_the_transpose_goes_in_front_and_a_second_run_changes_nothing() -> None:
    model = net(", alpha=0.5", bias=True)
    expected = run(model, X)
    result = NormalizeGemmPass(["fc"]).run(model)
    assert result.changes == ("fc: its input is transposed in front of it",)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Transpose", "Gemm"]
    assert attribute(model.graph.node[1], "transA", 0) == 0
    # The same sums of 24 products, perhaps in another order.
    np.testing.assert_allclose(
        run(model, X), expected, rtol=0, atol=24 * np.finfo(np.float32).eps * np.abs(expected).max()
    )
    assert not NormalizeGemmPass(["fc"]).run(model).modified


def test_other_layers_are_left_alone() -> None:
    model = net("", bias=False)
    before = model.SerializeToString()
    assert not NormalizeGemmPass(["other"]).run(model).modified
    assert model.SerializeToString() == before


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("attributes", ["", ", transB=1", ", transB=1, alpha=0.5, beta=2.0"])
def test_at_full_rank_the_layer_is_the_same(attributes: str, bias: bool) -> None:
    model = net(attributes, bias)
    result = onnx_lowrank.compress(model, plan=["fc=svd:R=16"], verification=False)
    expected, found = run(model, X), run(result.model, X)
    # Two stages, each of 24 float32 products or fewer, on outputs of one size.
    bound = 2 * 24 * np.finfo(np.float32).eps * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)
    assert "Transpose" in {node.op_type for node in result.model.graph.node}
