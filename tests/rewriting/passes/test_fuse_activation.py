"""Activations behind portable nodes become the node's own; outputs stay."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from builders import add_weights, run, text_model

from onnx_lowrank.graph.check import check_model
from onnx_lowrank.graph.layers import attribute
from onnx_lowrank.rewriting.lowering.functions import declare_functions
from onnx_lowrank.rewriting.passes.fuse_activation import FuseActivationPass

RNG = np.random.default_rng(0)
WEIGHTS = {
    "colours": RNG.standard_normal((2, 3, 1, 1)).astype(np.float32),
    "filters": RNG.standard_normal((4, 1, 3, 3)).astype(np.float32),
    "bias": RNG.standard_normal(4).astype(np.float32),
    "order": np.array([2, 0, 3, 1]),
}
BOUNDS = {"low": -0.5, "high": 1.5, "zero": 0.0}
X = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)


def model(
    body: str, *, opset: int = 13, slope: float = 1.0, outputs: str = "float[N,4,h,w] y"
) -> onnx.ModelProto:
    """Build a MonochromaticConv, ``x -> a``, with `body` behind it."""
    built = text_model(f"net (float[N,3,8,8] x) => ({outputs}) {{ {body} }}", opset=opset)
    node = onnx.helper.make_node(
        "MonochromaticConv",
        ["x", "colours", "filters", "bias", "order"],
        ["a"],
        name="conv",
        domain="onnx_lowrank",
        colours=2,
        strides=[1, 1],
        dilations=[1, 1],
        pads=[0, 0, 0, 0],
        min=-math.inf,
        max=math.inf,
        alpha=slope,
    )
    built.graph.node.insert(0, node)
    add_weights(built, WEIGHTS)
    built.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in BOUNDS.items()
    )
    declare_functions(built)
    check_model(built)
    return built


def fuse(built: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """Fuse, and assert that the outputs stay: clipping rounds nothing, a slope once."""
    copy = onnx.ModelProto()
    copy.CopyFrom(built)
    result = FuseActivationPass().run(copy)
    check_model(copy)
    assert not FuseActivationPass().run(copy).modified
    for expected, actual in zip(run(built, {"x": X}), run(copy, {"x": X}), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=np.finfo(np.float32).eps)
    return copy, result.modified


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Relu(a)", (0, math.inf, 1)),
        ("y = Clip(a, low, high)", (-0.5, 1.5, 1)),
        ("y = Clip(a, low)", (-0.5, math.inf, 1)),
        ('y = Clip(a, "", high)', (-math.inf, 1.5, 1)),
        ("y = LeakyRelu<alpha=0.2>(a)", (-math.inf, math.inf, 0.2)),
        ("y = LeakyRelu(a)", (-math.inf, math.inf, 0.01)),
        ("b = Relu(a) y = Clip(b, low, high)", (0, 1.5, 1)),
        ("c = Constant<value_float=2.5>() y = Clip(a, low, c)", (-0.5, 2.5, 1)),
        ("b = Clip(a, low, high) y = Relu(b)", (0, 1.5, 1)),
        ("b = Clip(a, low, low) y = Relu(b)", (0, 0, 1)),
        ("b = Clip(a, low, high) y = LeakyRelu<alpha=0.5>(b)", (-0.5, 1.5, 0.5)),
    ],
)
def test_an_activation_is_fused(body: str, expected: tuple[float, float, float]) -> None:
    fused, modified = fuse(model(body))
    assert modified
    (node,) = fused.graph.node
    found = tuple(attribute(node, name, None) for name in ("min", "max", "alpha"))
    assert found == pytest.approx(expected, rel=1e-7)  # attributes are float32
    assert list(node.output) == ["y"]


@pytest.mark.parametrize(
    ("body", "given"),
    [
        ("y = Sigmoid(a)", {}),
        ("y = Clip(a, high, low)", {}),  # bounds in the wrong order: max wins, as it is
        ("y = Relu(a) z = Exp(a)", {"outputs": "float[N,4,h,w] y, float[N,4,h,w] z"}),
        ("y = Relu(a)", {"outputs": "float[N,4,h,w] y, float[N,4,h,w] a"}),
        ("s = ReduceMax(x) t = Squeeze(s) y = Clip(a, zero, t)", {}),
        ("y = Relu(a)", {"slope": 0.5}),  # a slope is the last thing that a node does
        ("y = Relu(a)", {"opset": 11}),  # no body of this opset has an activation
    ],
)
def test_what_cannot_be_fused_stays(body: str, given: dict[str, Any]) -> None:
    before = model(body, **given)
    after, modified = fuse(before)
    assert not modified
    assert after == before


@pytest.mark.parametrize("opset", [9, 10])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Clip<min=-0.5, max=1.5>(a)", (-0.5, 1.5, 1)),
        ("y = Clip<max=1.5>(a)", (-math.inf, 1.5, 1)),
        ("b = Relu(a) y = LeakyRelu<alpha=0.5>(b)", (0, math.inf, 0.5)),
    ],
)
def test_bounds_were_attributes(
    opset: int, body: str, expected: tuple[float, float, float]
) -> None:
    fused, _ = fuse(model(body, opset=opset))
    (node,) = fused.graph.node
    assert tuple(attribute(node, name, None) for name in ("min", "max", "alpha")) == expected


def test_a_bound_that_a_caller_may_override_stays_an_input() -> None:
    built = model("y = Clip(a, low, high)")
    built.graph.input.append(onnx.helper.make_tensor_value_info("high", onnx.TensorProto.FLOAT, []))
    assert not FuseActivationPass().run(built).modified


def test_a_function_named_like_an_activation_stays() -> None:
    built = model("y = Relu(a)")
    built.graph.node[-1].domain = "my"
    built.opset_import.append(onnx.helper.make_opsetid("my", 1))
    assert not FuseActivationPass().run(built).modified


def test_an_op_of_this_domain_that_nobody_knows_stays() -> None:
    built = text_model("net (float[N,3] x) => (float[N,3] y) { a = Neg(x) y = Relu(a) }")
    built.graph.node[0].domain = "onnx_lowrank"
    before = built.SerializeToString()
    assert not FuseActivationPass().run(built).modified
    declare_functions(built)
    assert built.SerializeToString() == before
