from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from builders import conv_model, initializers, run, text_model
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnx_lowrank.conv import Window
from onnx_lowrank.graph.check import check_model
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.subgraph_builder import SubgraphBuilder

RNG = np.random.default_rng(0)
SINGLE = float(np.finfo(np.float32).eps)


def replaced(model: onnx.ModelProto, builder: SubgraphBuilder) -> onnx.ModelProto:
    editor = GraphEditor(model)
    editor.replace(model.graph.node[0], builder)
    editor.remove_dead()
    check_model(model)
    return model


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": 2, "pads": 1},
        {"dilations": 2, "group": 2},
        {"strides": 2, "auto_pad": "SAME_UPPER"},
    ],
    ids=str,
)
def test_a_conv_is_the_conv(axes: int, attributes: dict[str, Any]) -> None:
    """The same weights and attributes: the same operations, to the last bit."""
    given = dict(attributes)
    for name, times in (("strides", axes), ("dilations", axes), ("pads", 2 * axes)):
        if name in given:
            given[name] = (given[name],) * times
    weight = RNG.standard_normal((4, 4 // given.get("group", 1), *(3,) * axes))
    bias = RNG.standard_normal(4)
    x = RNG.standard_normal((2, 4, *(9,) * axes)).astype(np.float32)
    model = conv_model(weight, bias, **given)
    expected = run(model, {"x": x})[0]
    builder = SubgraphBuilder("conv", np.dtype(np.float32))
    group = given.pop("group", 1)
    window = replace(Window.of_ones(axes), **given)
    y = builder.conv(builder.input, weight, bias=bias, window=window, group=group, name="dense")
    builder.output(y)
    replaced(model, builder)
    assert [n.name for n in model.graph.node] == ["conv/dense"]
    assert set(initializers(model)) == {"conv.dense.weight", "conv.dense.bias"}
    np.testing.assert_array_equal(run(model, {"x": x})[0], expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_constants_are_rounded_to_the_type_of_the_layer(dtype: type) -> None:
    weight = RNG.standard_normal((4, 3, 3, 3))
    builder = SubgraphBuilder("conv", np.dtype(dtype))
    x = builder.gather(builder.input, np.array([2, 0, 1], np.int32), name="order")
    builder.output(builder.conv(x, weight[:, [2, 0, 1]], name="dense"))
    model = replaced(conv_model(weight, dtype=dtype), builder)
    found = initializers(model)
    assert found["conv.order.indices"].dtype == np.int64
    np.testing.assert_array_equal(
        found["conv.dense.weight"], weight[:, [2, 0, 1]].astype(dtype), strict=True
    )


def test_a_constant_of_bfloat16() -> None:
    dtype = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    builder = SubgraphBuilder("conv", dtype)
    builder.output(builder.conv(builder.input, np.ones((4, 3, 3, 3)), name="dense"))
    model = replaced(
        conv_model(np.ones((4, 3, 3, 3)), dtype=dtype, ir_version=10, opset=22), builder
    )
    assert model.graph.initializer[0].data_type == TensorProto.BFLOAT16


def fc(op: str, opset: int, ir_version: int) -> onnx.ModelProto:
    weights: dict[str, NDArray[Any]] = {"w": RNG.standard_normal((5, 4)).astype(np.float32)}
    text = "net (float[N,5] x) => (float[N,4] y) { y = MatMul(x, w) }"
    if op == "Gemm":
        text = "net (float[N,5] x) => (float[N,4] y) { y = Gemm(x, w, b) }"
        weights["b"] = RNG.standard_normal(4).astype(np.float32)
    return text_model(text, weights, ir_version=ir_version, opset=opset)


@pytest.mark.parametrize(("opset", "ir_version"), [(7, 3), (9, 3), (10, 5), (13, 8), (21, 10)])
def test_products_in_every_opset(opset: int, ir_version: int) -> None:
    """In two factors: W = (W / 2) @ (2 I), exact but for the order of the sums."""
    for op in ("Gemm", "MatMul"):
        model = fc(op, opset, ir_version)
        x = RNG.standard_normal((3, 5)).astype(np.float32)
        expected = run(model, {"x": x})[0]
        weight = initializers(model)["w"].T.astype(np.float64)
        builder = SubgraphBuilder("fc", np.dtype(np.float32))
        if op == "Gemm":
            z = builder.gemm(builder.input, weight / 2, name="first")
            bias = initializers(model)["b"].astype(np.float64)
            builder.output(builder.gemm(z, 2 * np.eye(4), bias=bias, name="second"))
        else:
            z = builder.matmul(builder.input, weight / 2, name="first")
            builder.output(builder.matmul(z, 2 * np.eye(4), name="second"))
        replaced(model, builder)
        scale = np.abs(x) @ np.abs(weight.T) + 3
        error = np.abs(run(model, {"x": x})[0] - expected)
        assert (error <= 8 * SINGLE * scale).all()  # 5 products and a sum, twice


def test_other_nodes_and_inputs_left_out() -> None:
    builder = SubgraphBuilder("conv", np.dtype(np.float32))
    x = builder.conv(builder.input, np.ones((4, 3, 3, 3)), name="dense")
    limit = builder.constant(np.array(1.0), "limit")
    builder.output(builder.node("Clip", [x, "", limit], name="clip"))
    model = replaced(conv_model(np.ones((4, 3, 3, 3))), builder)
    assert list(model.graph.node[1].input) == ["conv/dense:0", "", "conv.limit"]
    ones = np.ones((1, 3, 9, 9), np.float32)
    np.testing.assert_array_equal(run(model, {"x": ones})[0], np.ones((1, 4, 7, 7)))


def test_a_node_of_another_domain() -> None:
    builder = SubgraphBuilder("conv", np.dtype(np.float32))
    builder.output(builder.node("Special", [builder.input], {"n": [1, 2]}, domain="own", name="s"))
    (node,) = builder.export().node
    assert (node.domain, node.op_type, node.name) == ("own", "Special", "conv/s")
    assert helper.get_attribute_value(node.attribute[0]) == [1, 2]


def test_mistakes() -> None:
    builder = SubgraphBuilder("conv", np.dtype(np.float32))
    with pytest.raises(ValueError, match="computes no output"):
        builder.export()
    builder.output(builder.input)
    with pytest.raises(ValueError, match="computes no output"):
        builder.export()
    builder.conv(builder.input, np.ones((4, 3, 1, 1)), name="a")
    with pytest.raises(ValueError, match=r"has a 'conv\.a\.weight' already"):
        builder.conv(builder.input, np.ones((4, 3, 1, 1)), name="a")
    with pytest.raises(KeyError):
        builder.node("Relu", ["nowhere"], name="relu")


def test_a_weight_is_not_shared_with_the_caller() -> None:
    weight = np.ones((4, 3, 1, 1), np.float32)
    builder = SubgraphBuilder("conv", np.dtype(np.float32))
    builder.output(builder.conv(builder.input, weight, name="a"))
    weight[:] = 7
    exported = builder.export()
    assert np.frombuffer(exported.initializer[0].raw_data, np.float32).max() == 1
