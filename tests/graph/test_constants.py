from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import add_weights, text_model
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnx_lowrank.graph.edit import GraphEditor

W = np.arange(6, dtype=np.float32).reshape(2, 3)
CHAINS = {
    "initializer": ("k = Identity(w)", W),
    "transpose": ("k = Transpose<perm=[1,0]>(w)", W.T),
    "chain": ("a = Transpose(w) b = Reshape(a, shape) k = Cast<to=1>(b)", W.T.reshape(1, 6)),
    "half": ("k = Cast<to=10>(w)", W.astype(np.float16)),
    "one of several": ("a, k = Split<axis=1>(wide)", W[:, :2]),
    "arithmetic": ("a = Mul(w, w) k = Add(a, w)", W * W + W),
    "dequantised": (
        "k = DequantizeLinear(q, scale, zero)",
        (np.array([0, 1, 254], np.float32) - 3) * 0.5,
    ),
    "omitted input": ("k = Clip(w, , high)", np.minimum(W, np.float32(2))),
    "of shape": ("k = ConstantOfShape<value = float[1] {0.5}>(shape)", np.full((1, 6), 0.5, "f4")),
    "of shape, zero": ("k = ConstantOfShape(shape)", np.zeros((1, 6), np.float32)),
    "float": ("k = Constant<value_float = 1.5>()", np.float32(1.5)),
    "ints": ("k = Constant<value_ints = [3, 4]>()", np.array([3, 4])),
    "tensor": ("k = Constant<value = int8[2] {3, 4}>()", np.array([3, 4], np.int8)),
}


def model(text: str, *, ir_version: int = 8, opset: int = 13) -> onnx.ModelProto:
    found = text_model(
        f"net (float[2] x) => (y, z) {{ {text} y = Relu(x) z = Identity(k) }}",
        ir_version=ir_version,
        opset=opset,
    )
    weights: dict[str, NDArray[np.generic]] = {
        "w": W,
        "wide": np.concatenate([W[:, :2], W[:, :2]], axis=1),
        "shape": np.array([1, 6]),
        "q": np.array([0, 1, 254], np.uint8),
        "scale": np.array(0.5, np.float32),
        "zero": np.array(3, np.uint8),
        "high": np.array(2, np.float32),
    }
    add_weights(found, weights)
    return found


@pytest.mark.parametrize("ir_version", [3, 8])
@pytest.mark.parametrize("name", CHAINS)
def test_values(name: str, ir_version: int) -> None:
    text, expected = CHAINS[name]
    value = GraphEditor(model(text, ir_version=ir_version)).constant("k")
    assert value is not None
    assert value.dtype == np.asarray(expected).dtype
    np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(
    "text",
    [
        "k = Identity(x)",
        "a = Transpose(w) k = Add(a, y)",
        "k = RandomNormal<shape=[2,3]>()",
        "k = RandomUniformLike(w)",
        "k, m = Dropout(w)",
        "k = other.Identity(w)",
        "k = If(c) <then_branch = t () => (a) { a = Identity(w) },"
        " else_branch = e () => (b) { b = Identity(w) }>",
        "k = Clip(w, , x)",
        "k = NoSuchOp(w)",
        "k = Reshape(w, scale)",  # fails
        "k = SequenceConstruct(w, w)",  # no tensor
        "k = Identity(nowhere)",
    ],
)
def test_what_is_no_constant(text: str) -> None:
    assert GraphEditor(model(text)).constant("k") is None


def test_a_constant_of_shape_takes_no_memory() -> None:
    proto = model("k = ConstantOfShape(shape)")
    shape = next(t for t in proto.graph.initializer if t.name == "shape")
    shape.CopyFrom(numpy_helper.from_array(np.array([10**6, 10**6]), "shape"))
    value = GraphEditor(proto).constant("k")
    assert value is not None
    assert value.shape == (10**6, 10**6)


def test_a_bfloat16_weight() -> None:
    kind = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    proto = model("k = Transpose(v)")
    add_weights(proto, {"v": W.astype(kind)})
    editor = GraphEditor(proto)
    for name, expected in (("v", W), ("k", W.T)):
        value = editor.constant(name)
        assert value is not None
        assert value.dtype == kind
        np.testing.assert_array_equal(value.astype(np.float32), expected)


def test_a_chain_longer_than_the_stack() -> None:
    steps = " ".join(f"a{i + 1} = Neg(a{i})" for i in range(2001))
    value = GraphEditor(model(f"a0 = Identity(w) {steps} k = Identity(a2001)")).constant("k")
    np.testing.assert_array_equal(value, -W)


def test_a_cycle_has_no_value() -> None:
    editor = GraphEditor(model("a = Add(b, w) b = Neg(a) k = Add(a, b)"))
    assert editor.constant("k") is None
    assert editor.constant("a") is None


def test_older_operators() -> None:
    """Attributes of then that are inputs now; no opset at all counts as the first."""
    value = GraphEditor(model("k = Unsqueeze<axes=[0]>(w)", opset=9)).constant("k")
    np.testing.assert_array_equal(value, W[None])
    proto = model("k = Transpose(w)")
    del proto.opset_import[:]
    np.testing.assert_array_equal(GraphEditor(proto).constant("k"), W.T)


def test_cast_like_depends_on_a_type_alone() -> None:
    proto = model("k = CastLike(i, x)")
    proto.opset_import[0].version = 18
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 2]), "i"))
    value = GraphEditor(proto).constant("k")
    assert value is not None
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, [1.0, 2.0])


def test_a_shape_that_the_inputs_fix_is_constant_and_a_noted_one_is_not() -> None:
    fixed = text_model("net (float[2,3] x) => (float[A] y) { s = Shape(x) y = Expand(x, s) }")
    np.testing.assert_array_equal(np.asarray(GraphEditor(fixed).constant("s")), [2, 3])
    open_one = text_model("net (float[N,3] x) => (float[A] y) { s = Shape(x) y = Expand(x, s) }")
    assert GraphEditor(open_one).constant("s") is None
    noted = text_model(
        "net (float[N,3] x) => (float[A] y) <float[2,3] u> "
        "{ u = my.F(x) s = Shape(u) y = Expand(x, s) }"
    )
    assert GraphEditor(noted).constant("s") is None


@pytest.mark.parametrize(
    "body",
    ["k = Expand(one, huge)", "k = Tile(one, huge)", "k = Add(column, row)", "k = Range(a, b, a)"],
)
def test_constants_that_no_memory_holds_are_not_computed(body: str) -> None:
    proto = text_model(
        f"net (float[2] x) => (float[A] y) {{ {body} y = Neg(x) }}",
        {
            "one": np.ones((1, 1), np.float32),
            "huge": np.array([2**20, 2**20]),
            "column": np.ones((2**17, 1), np.float32),
            "row": np.ones((1, 2**17), np.float32),
            "a": np.array(1),
            "b": np.array(2**40),
        },
    )
    assert GraphEditor(proto).constant("k") is None


def test_an_optional_input_is_constant_by_default_alone() -> None:
    proto = text_model(
        "net (float[2] x) => (float[2] y) { k = Neg(o) y = Add(x, k) }",
        {"o": np.ones(2, np.float32)},
    )
    proto.graph.input.append(helper.make_tensor_value_info("o", onnx.TensorProto.FLOAT, [2]))
    editor = GraphEditor(proto)
    for name in ("o", "k"):
        assert editor.optional_inputs(name) == ["o"]
        assert editor.constant(name) is None
        assert editor.constant(name, defaults=True) is not None
    proto.ir_version = 3  # there, all initializers are listed
    assert GraphEditor(proto).constant("k") is not None
