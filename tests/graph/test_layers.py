from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from builders import add_weights, conv_model, run, text_model
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.io import load_model
from onnx_lowrank.graph.layers import Layer, attribute, find_layers, layer_bias, layer_weight

RNG = np.random.default_rng(0)
W = RNG.standard_normal((4, 4, 3, 3)).astype(np.float32)
EPS = float(np.finfo(np.float32).eps)


def only(model: onnx.ModelProto, **options: Any) -> Layer:
    (layer,) = find_layers(model, **options)
    return layer


def test_a_conv_with_all_attributes() -> None:
    model = conv_model(
        RNG.standard_normal((6, 2, 3, 5)),
        np.zeros(6),
        strides=[2, 1],
        dilations=[1, 2],
        pads=[1, 2, 3, 4],
        group=2,
        input_shape=("N", 4, 9, 16),
    )
    layer = only(model)
    assert (layer.name, layer.op, layer.reason) == ("conv", "Conv", None)
    assert layer.node is model.graph.node[0]
    assert (layer.weight, layer.bias, layer.dtype.name) == ("w", "b", "float32")
    conv = layer.spec
    assert conv is not None
    assert (conv.in_channels, conv.out_channels, conv.group, conv.bias) == (4, 6, 2, True)
    assert (conv.kernel, conv.strides, conv.dilations) == ((3, 5), (2, 1), (1, 2))
    assert (conv.pads, conv.auto_pad) == ((1, 2, 3, 4), "NOTSET")
    assert (conv.input_size, conv.output_size) == ((9, 16), (6, 14))
    assert conv.weight_shape == (6, 2, 3, 5)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_defaults(axes: int) -> None:
    conv = only(conv_model(np.zeros((4, 3, *(3,) * axes)))).spec
    assert conv is not None
    assert conv.kernel == (3,) * axes
    assert conv.strides == conv.dilations == (1,) * axes
    assert conv.pads == (0,) * (2 * axes)
    assert (conv.group, conv.auto_pad, conv.bias) == (1, "NOTSET", False)
    assert conv.output_size == (7,) * axes


def test_auto_pad_and_open_sizes() -> None:
    model = conv_model(W, auto_pad="SAME_UPPER", strides=[2, 2], input_shape=("N", 4, "H", 9))
    conv = only(model).spec
    assert conv is not None
    assert (conv.auto_pad, conv.input_size, conv.output_size, conv.macs) == (
        "SAME_UPPER",
        None,
        None,
        None,
    )
    conv = only(model, input_shapes={"x": (1, 4, 8, 9)}).spec
    assert conv is not None
    assert (conv.input_size, conv.output_size) == ((8, 9), (4, 5))
    assert conv.macs == 4 * 4 * 9 * 20


@pytest.mark.parametrize("ir_version", [3, 8])
@pytest.mark.parametrize(
    "text",
    [
        "y = Conv(x, w)",
        "k = Identity(w) y = Conv(x, k)",
        "k = Transpose<perm=[1,0,2,3]>(w) y = Conv(x, k)",
        "k = ConstantOfShape(shape) y = Conv(x, k)",
        "k = DequantizeLinear(q, scale, zero) y = Conv(x, k)",  # only the weight is quantised
    ],
)
def test_weights_wherever_they_come_from(text: str, ir_version: int) -> None:
    model = text_model(f"net (float[N,4,9,9] x) => (y) {{ {text} }}", ir_version=ir_version)
    weights: dict[str, NDArray[Any]] = {
        "w": W,
        "shape": np.array(W.shape),
        "q": np.ones(W.shape, np.uint8),
        "scale": np.array(0.5, np.float32),
        "zero": np.array(3, np.uint8),
    }
    used = set(text.replace(",", " ").replace(")", " ").replace("(", " ").split())
    add_weights(model, {name: value for name, value in weights.items() if name in used})
    layer = only(model)
    assert layer.reason is None
    assert layer.spec is not None
    assert layer.spec.weight_shape == W.shape
    found = layer_weight(GraphEditor(model), layer)
    assert (found.shape, found.dtype.name) == (W.shape, "float64")
    # One tap at a time: the output is the weight itself.
    taps = np.eye(36, dtype=np.float32).reshape(36, 4, 3, 3)
    computed = run(model, {"x": np.pad(taps, ((0, 0), (0, 0), (0, 6), (0, 6)))})[0][:, :, 0, 0]
    np.testing.assert_array_equal(computed.T.reshape(W.shape), found)


def test_names() -> None:
    text = """net (float[N,4,99,99] x) => (y) {
        [a] b = Conv(x, w)
        [a] c = Conv(b, w)
        d = Conv(c, w)
        [d] e = Conv(d, w)
        [e] f = Conv(e, w)
        y = Conv(f, w)
    }"""
    model = text_model(text, {"w": W})
    assert [layer.name for layer in find_layers(model)] == ["a", "c", "d", "e", "f", "y"]


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [None, (), (1,), (4,), (1, 1), (1, 4)], ids=str)
def test_what_a_gemm_computes(alpha: float, transposed: int, bias: tuple[int, ...] | None) -> None:
    weights = {"w": RNG.standard_normal((4, 5) if transposed else (5, 4)).astype(np.float32)}
    if bias is not None:
        weights["b"] = RNG.standard_normal(bias).astype(np.float32)
    attributes = f"alpha={alpha}, beta=-2.0, transB={transposed}"
    inputs = "x, w" if bias is None else "x, w, b"
    model = text_model(
        f"net (float[N,5] x) => (y) {{ [fc] y = Gemm<{attributes}>({inputs}) }}", weights
    )
    layer, editor = only(model), GraphEditor(model)
    conv = layer.spec
    assert (layer.op, layer.name, layer.reason) == ("Gemm", "fc", None)
    assert conv is not None
    assert (conv.in_channels, conv.out_channels, conv.kernel) == (5, 4, ())
    assert (conv.input_size, conv.output_size, conv.macs) == ((), (), 20)
    assert conv.bias is (bias is not None)
    weight, shift = layer_weight(editor, layer), layer_bias(editor, layer)
    assert (weight.shape, weight.dtype.name) == ((4, 5), "float64")
    x = RNG.standard_normal((3, 5)).astype(np.float32)
    expected = x @ weight.T
    if bias is None:
        assert shift is None
    else:
        assert shift is not None
        assert shift.shape == (4,)
        expected = expected + shift
    bound = 8 * EPS * (np.abs(x) @ np.abs(weight.T) + 6)  # 5 products, a bias below 6
    assert (np.abs(run(model, {"x": x})[0] - expected) <= bound).all()


@pytest.mark.parametrize(
    ("shape", "size"), [("N,5", ()), ("N,7,5", (7,)), ("N,2,3,5", (2, 3)), ("N,T,5", None)]
)
def test_what_a_matmul_computes(shape: str, size: tuple[int, ...] | None) -> None:
    weight = RNG.standard_normal((5, 4)).astype(np.float32)
    model = text_model(f"net (float[{shape}] x) => (y) {{ y = MatMul(x, w) }}", {"w": weight})
    layer = only(model)
    conv = layer.spec
    assert (layer.op, layer.name, layer.reason) == ("MatMul", "y", None)
    assert conv is not None
    assert (conv.in_channels, conv.out_channels, conv.bias) == (5, 4, False)
    assert conv.input_size == conv.output_size == size
    np.testing.assert_array_equal(layer_weight(GraphEditor(model), layer), weight.T)
    assert layer_bias(GraphEditor(model), layer) is None


def test_weights_are_new_arrays() -> None:
    for text in ("y = Gemm<transB=1>(x, w)", "y = Gemm(x, w)", "y = MatMul(x, w)"):
        model = text_model(f"net (double[N,4] x) => (y) {{ {text} }}", {"w": np.eye(4)})
        before = model.SerializeToString()
        value = layer_weight(GraphEditor(model), only(model))
        assert value.flags.writeable
        assert value.flags.c_contiguous
        value[:] = 0
        assert model.SerializeToString() == before


REFUSED = [
    ("Conv(x, x)", "its weight 'x' is not constant"),
    ("Conv(x, w, m)", "its bias 'm' is not constant"),
    ("Conv(i, v)", "its weight 'v' is of type int8, not floating-point"),
    ("Gemm(f, g, h)", "its bias 'h' differs from row to row"),
    ("MatMul(f, stack)", "its weight 'stack' is of rank 3"),
    ("MatMul(f, vector)", "its weight 'vector' is of rank 1"),
    ("Conv(qx, qw)", "it is quantised; give the model as it was before quantisation"),
    ("ConvInteger(i, v)", "it is quantised; give the model as it was before quantisation"),
    (
        "com.microsoft.FusedConv(x, w)",
        "it is an op of onnxruntime's own; give the model as it was before optimisation",
    ),
]


@pytest.mark.parametrize(("node", "reason"), REFUSED)
def test_reasons(node: str, reason: str) -> None:
    text = f"""net (float[4,4,9,9] x, int8[4,4,9,9] i, float[4,4] f) => (y) {{
        m = ReduceMean<axes=[0,2,3], keepdims=0>(x)
        qa = QuantizeLinear(x, scale, zero)
        qx = DequantizeLinear(qa, scale, zero)
        qw = DequantizeLinear(v, scale, zero)
        [it] y = {node}
    }}"""
    weights: dict[str, NDArray[Any]] = {
        "w": W,
        "v": np.ones(W.shape, np.int8),
        "g": np.eye(4, dtype=np.float32),
        "h": np.ones((4, 1), np.float32),
        "stack": np.ones((1, 4, 4), np.float32),
        "vector": np.ones(4, np.float32),
        "scale": np.array(0.1, np.float32),
        "zero": np.array(0, np.int8),
    }
    layer = only(text_model(text, weights))
    assert layer.name == "it"
    assert layer.reason == reason


def test_what_a_refused_layer_computes_is_still_told() -> None:
    model = text_model("net (float[1,4,9,9] x, float[6,4,3,3] k) => (y) { [c] y = Conv(x, k) }")
    layer = only(model)
    assert layer.reason == "its weight 'k' is not constant"
    assert layer.spec is not None
    assert layer.spec.macs == 6 * 4 * 9 * 49
    with pytest.raises(ValueError, match="weight of layer 'c' is not constant"):
        layer_weight(GraphEditor(model), layer)


def test_an_old_gemm_is_refused() -> None:
    text = "net (float[N,4] x) => (y) { y = Gemm(x, w, b) }"
    weights = {"w": np.eye(4, dtype=np.float32), "b": np.zeros((4, 4), np.float32)}
    layer = only(text_model(text, weights, ir_version=3, opset=6))
    assert layer.reason == "Gemm of opset 6 is not supported; convert the model to opset 7 or later"


def test_what_is_no_layer() -> None:
    text = """net (float[N,4,9,9] x, float[4,4] f) => (y, z) {
        a = MatMul(f, f)
        c = Gemm(f, f, g)
        y = other.Conv(x, w)
        z = Add(f, g)
    }"""
    model = text_model(text, {"w": W, "g": np.eye(4, dtype=np.float32)})
    assert find_layers(model) == ()


def test_layers_in_bodies_and_functions_are_listed_with_the_reason() -> None:
    text = """net (float[1,4,9,9] x, bool c, int64 n) => (y, z) {
        [first] a = Conv(x, w)
        [choose] b = If(c) <
            then_branch = t () => (p) { [first] p = Conv(a, w) },
            else_branch = e () => (q) {
                [deep] q = If(c) <
                    then_branch = t2 () => (r) { r = Conv(a, w) },
                    else_branch = e2 () => (s) { s = Neg(a) }
                >
            }
        >
        y = Neg(b)
        z = Loop(n, c, f) <body = l (int64 i, bool go, float[4,4] v) => (go2, u) {
            go2 = Identity(go)
            k = Constant<value_floats = [1.0]>()
            t = MatMul(v, v)
            u = MatMul(t, g)
        }>
        [last] d = Conv(a, w)
    }"""
    weights = {"w": W, "g": np.eye(4, dtype=np.float32), "f": np.eye(4, dtype=np.float32)}
    model = text_model(text, weights)
    body = [
        helper.make_node("Conv", ["a", "k"], ["m"], name="first"),
        helper.make_node("Conv", ["m", "k"], ["b"]),
    ]
    function = helper.make_function(
        "local", "block", ["a", "k"], ["b"], body, [helper.make_opsetid("", 13)]
    )
    model.functions.append(function)
    before = model.SerializeToString()
    found = [(layer.name, layer.op, layer.reason) for layer in find_layers(model)]
    where = "it is inside the {} of {} node '{}'; bodies are left alone"
    inside = "it is inside the model-local function 'block'; functions are left alone"
    assert found == [
        ("first", "Conv", None),
        ("p", "Conv", where.format("then_branch", "If", "choose")),
        ("r", "Conv", where.format("else_branch", "If", "choose")),
        ("u", "MatMul", where.format("body", "Loop", "z")),
        ("last", "Conv", None),
        ("m", "Conv", inside),
        ("b", "Conv", inside),
    ]
    assert model.SerializeToString() == before


def test_names_in_bodies_are_told_apart() -> None:
    branch = "() => (float[1,4,7,7] p) { [c] p = Conv(x, w) }"
    text = f"""net (float[1,4,9,9] x, bool c) => (y) {{
        [if] y = If(c) <then_branch = t {branch}, else_branch = e {branch}>
        [c] z = Conv(x, w)
        p = Conv(x, w)
    }}"""
    found = [layer.name for layer in find_layers(text_model(text, {"w": W}))]
    assert found == ["if/then_branch/c", "if/else_branch/c", "c", "p"]


# Number of layers, and thousands of millions of multiply-adds as published with the networks.
LIGHT: dict[str, tuple[int, float | None]] = {
    "densenet121": (121, 2.83),
    "resnet50": (54, 4.09),
    "vgg19": (19, 19.63),
    "zfnet512": (8, None),
    "bvlc_alexnet": (8, None),
}


@pytest.mark.parametrize("name", LIGHT)
def test_the_light_models(name: str, light_folder: Path) -> None:
    count, macs = LIGHT[name]
    layers = find_layers(load_model(light_folder / f"light_{name}.onnx"))
    assert len(layers) == count
    assert all(layer.reason is None for layer in layers)
    total = sum(layer.spec.macs or 0 for layer in layers if layer.spec)
    if macs is not None:
        assert round(total / 1e9, 2) == macs


STORED = [
    ("y = Conv(x, w)", [("w", 144, 576)]),
    ("k = Transpose<perm=[1,0,2,3]>(w) y = Conv(x, k)", [("w", 144, 576)]),
    ("k = DequantizeLinear(q, s, z) y = Conv(x, k)", [("q", 144, 149)]),
    ("h = Cast<to=1>(half) y = Conv(x, h)", [("half", 144, 288)]),
    ("k = Mul(w, s) y = Conv(x, k)", [("k", 144, 580)]),
    ("k = ConstantOfShape(shape) y = Conv(x, k)", [("k", 144, 32)]),
    ("a = Conv(x, w) y = Conv(a, w)", [("w", 144, 576), ("w", 144, 576)]),
    ("k = Transpose<perm=[1,0,2,3]>(w) a = Conv(x, w) y = Conv(a, k)", [("w", 144, 576)] * 2),
    ("k = ReduceMean<axes=[0]>(x) l = Concat<axis=0>(k, k) y = Conv(x, x)", []),
]


@pytest.mark.parametrize(("text", "expected"), STORED)
def test_where_weights_are_stored(text: str, expected: list[tuple[str, int, int]]) -> None:
    weights: dict[str, NDArray[Any]] = {
        "w": W,
        "half": W.astype(np.float16),
        "shape": np.array(W.shape),
        "q": np.ones(W.shape, np.uint8),
        "s": np.array(0.5, np.float32),
        "z": np.array(3, np.uint8),
    }
    used = set(text.replace(",", " ").replace(")", " ").replace("(", " ").split())
    model = text_model(
        f"net (float[N,4,9,9] x) => (y) {{ {text} }}",
        {name: value for name, value in weights.items() if name in used},
    )
    found = [weight for layer in find_layers(model) for weight in layer.weights or ()]
    assert [(weight.key, weight.params, weight.bytes) for weight in found] == expected
    assert not any(weight.elsewhere for weight in found)


@pytest.mark.parametrize(
    ("text", "elsewhere"),
    [
        ("y = MatMul(x, w) z = Gather(w, i)", True),  # an embedding tied to the last layer
        ("t = Transpose(w) y = MatMul(x, t) z = Gather(w, i)", True),
        ("u = Add(x, w) y = MatMul(u, w) z = Neg(i)", True),
        ("y = MatMul(x, w) z = Identity(w)", True),
        ("y = MatMul(x, w) t = Transpose(w) z = Identity(i)", False),  # nothing reads t
        ("u = MatMul(x, w) y = MatMul(u, w) z = Identity(i)", False),
    ],
)
def test_whether_anything_but_layers_reads_a_weight(text: str, elsewhere: bool) -> None:
    model = text_model(
        f"net (float[4,4] x, int64[3] i) => (y, z) {{ {text} }}", {"w": np.eye(4, dtype=np.float32)}
    )
    layers = find_layers(model)
    assert all(w.elsewhere is elsewhere for layer in layers for w in layer.weights or ())


def test_weights_in_bodies_and_functions_are_counted_where_they_are_known() -> None:
    text = """net (float[1,4,9,9] x, bool c) => (y) {
        [one] a = If(c) <
            then_branch = t () => (p) { p = Conv(x, w) },
            else_branch = e () => (q) { k = ConstantOfShape(shape) q = Conv(x, k) }
        >
        b = local.block(a, v)
        d = local.block(b, v)
        y = Conv(d, w)
    }"""
    model = text_model(text, {"w": W, "v": W, "shape": np.array([6, 4, 3, 3])})
    body = [
        helper.make_node("Conv", ["x", "k"], ["m"]),
        helper.make_node("Transpose", ["k"], ["l"], perm=[1, 0, 2, 3]),
        helper.make_node("Conv", ["m", "l"], ["z"]),
    ]
    imports = [helper.make_opsetid("", 13)]
    model.functions.append(helper.make_function("local", "block", ["x", "k"], ["z"], body, imports))
    found = {layer.name: layer for layer in find_layers(model)}
    assert list(found) == ["p", "q", "y", "m", "z"]
    for name in ("p", "y"):
        assert [w.key for w in found[name].weights or ()] == ["w"]
    assert found["q"].weights is None  # a size that is computed inside a body
    assert [w.key for w in found["m"].weights or ()] == ["v"]
    assert found["z"].weights is None
    assert [found[name].params for name in found] == [144, None, 144, 144, None]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_values_that_are_not_finite_are_a_reason(bad: float, dtype: str) -> None:
    weight = W.copy()
    weight[3, 1, 2, 2] = bad
    model = conv_model(weight, np.zeros(4), dtype=dtype)
    assert only(model).reason is None  # as passes list layers: weights are not looked at
    assert only(model, check_values=True).reason == "its weight has NaN or Inf"
    model = conv_model(W, np.array([0, bad, 0, 0]), dtype=dtype)
    assert only(model, check_values=True).reason == "its bias has NaN or Inf"


@pytest.mark.parametrize(("value", "dtype"), [(6e4, "float16"), (3e38, "float32")])
def test_large_values_are_finite_though_their_sum_is_not(value: float, dtype: str) -> None:
    model = conv_model(np.full(W.shape, value), dtype=dtype)
    assert only(model, check_values=True).reason is None


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_bias_of_the_type_of_the_input_is_constant(dtype: Any) -> None:
    kind = "float" if dtype == np.float32 else "float16"
    text = f"""net ({kind}[N,4,9,9] x) => (y) {{
        c = CastLike(one, x)
        b = Expand(c, size)
        y = Conv(x, w, b)
    }}"""
    weights = {"one": np.array(1), "size": np.array([4]), "w": W.astype(dtype)}
    model = text_model(text, weights, opset=18)
    layer = only(model)
    assert layer.reason is None
    np.testing.assert_array_equal(layer_bias(GraphEditor(model), layer), np.ones(4))
    value = GraphEditor(model).constant("b")
    assert value is not None
    assert value.dtype == dtype


def test_attributes() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="VALID", group=2, pads=[1, 1])
    assert attribute(node, "auto_pad", "NOTSET") == "VALID"
    assert attribute(node, "group", 1) == 2
    assert attribute(node, "pads", None) == [1, 1]
    assert attribute(node, "strides", None) is None


def test_a_bfloat16_layer() -> None:
    dtype = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    layer = only(conv_model(W, dtype=dtype, ir_version=10, opset=22))
    assert (layer.reason, layer.dtype) == (None, dtype)


@pytest.mark.parametrize("shape", [(0, 8, 3, 3), (8, 0, 1, 1)])
def test_a_weight_without_elements_is_a_reason(shape: tuple[int, ...]) -> None:
    assert only(conv_model(np.zeros(shape))).reason == "its weight 'w' has no elements"
