"""LRN nodes become portable ones that compute the same."""

from __future__ import annotations

import numpy as np
import pytest
from builders import run, text_model

from onnx_lowrank.graph.check import check_model
from onnx_lowrank.graph.layers import attribute
from onnx_lowrank.rewriting.passes.portable_lrn import PortableLrnPass

X = np.random.default_rng(0).standard_normal((2, 7, 5, 6)).astype(np.float32)


@pytest.mark.parametrize(("ir_version", "opset"), [(3, 7), (6, 11), (8, 13)])
def test_all_lrn_nodes_with_their_attributes(ir_version: int, opset: int) -> None:
    text = """net (float[N,7,5,6] x) => (float[N,7,h,w] y) {
        a = LRN<size=3>(x)
        b = Relu(a)
        y = LRN<size=5, alpha=0.3, beta=0.5, bias=2.0>(b)
    }"""
    model = text_model(text, ir_version=ir_version, opset=opset)
    (before,) = run(model, {"x": X})
    result = PortableLrnPass().run(model)
    assert len(result.changes) == 2
    check_model(model)
    assert [node.domain for node in model.graph.node] == ["onnx_lowrank", "", "onnx_lowrank"]
    first, _, last = model.graph.node
    assert [attribute(first, n, None) for n in ("size", "alpha", "beta", "bias")] == [
        3,
        pytest.approx(1e-4, rel=1e-7),
        0.75,
        1.0,
    ]
    assert attribute(last, "size", None) == 5
    assert [f.name for f in model.functions] == ["LRN"]
    # The body is the same op: the same numbers.
    np.testing.assert_array_equal(run(model, {"x": X})[0], before)
    assert not PortableLrnPass().run(model).modified


def test_other_types_stay() -> None:
    text = """net (float16[N,7,5,6] x) => (float16[N,7,h,w] y) { [n] y = LRN<size=3>(x) }"""
    model = text_model(text)
    result = PortableLrnPass().run(model)
    assert not result.modified
    assert [r.layer for r in result.refusals] == ["n"]
    assert model.graph.node[0].domain == ""
    assert len(model.functions) == 0


def test_no_lrn_no_change() -> None:
    model = text_model("net (float[N] x) => (float[N] y) { y = Relu(x) }")
    before = model.SerializeToString()
    assert not PortableLrnPass().run(model).modified
    assert model.SerializeToString() == before
