from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import initializers, run, text_model, without

from onnx_lowrank.graph.check import check_model
from onnx_lowrank.graph.io import load_model
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.rewriting.passes.fold_constants import FoldConstantsPass

RNG = np.random.default_rng(0)
W = RNG.standard_normal((4, 4, 3, 3)).astype(np.float32)
X = RNG.standard_normal((2, 4, 9, 9)).astype(np.float32)


def model(body: str, *, ir_version: int = 8, opset: int = 13) -> onnx.ModelProto:
    return text_model(
        f"net (float[N,4,9,9] x) => (float[N,C,H,V] y) {{ {body} }}",
        {
            "w": W,
            "shape": np.array(W.shape),
            "q": (10 * W).astype(np.int8),
            "s": np.array(0.1, np.float32),
        },
        ir_version=ir_version,
        opset=opset,
    )


def fold(proto: onnx.ModelProto, *layers: str) -> tuple[str, ...]:
    """Run the pass; the model is valid after it, and a second run finds nothing."""
    first = FoldConstantsPass(layers).run(proto)
    check_model(proto)
    once = proto.SerializeToString(deterministic=True)
    second = FoldConstantsPass(layers).run(proto)
    assert (second.modified, second.changes) == (False, ())
    assert proto.SerializeToString(deterministic=True) == once
    assert first.modified == bool(first.changes)
    return first.changes


@pytest.mark.parametrize("ir_version", [3, 8])
@pytest.mark.parametrize(
    "chain",
    [
        "k = ConstantOfShape<value = float[1] {0.5}>(shape)",
        "k = Transpose<perm=[1,0,2,3]>(w)",
        "a = Transpose<perm=[2,3,1,0]>(w) b = Neg(a) k = Transpose<perm=[3,2,0,1]>(b)",
        "h = Cast<to=10>(w) k = Cast<to=1>(h)",
        "k = DequantizeLinear(q, s)",
    ],
)
def test_a_chain_becomes_an_initializer_of_its_name(chain: str, ir_version: int) -> None:
    opset = 10 if ir_version == 3 else 13
    proto = model(f"{chain} [c] y = Conv(x, k)", ir_version=ir_version, opset=opset)
    expected = run(proto, {"x": X})[0]
    assert fold(proto, "c") == ("c: constant 'k' is an initializer now",)
    assert [n.op_type for n in proto.graph.node] == ["Conv"]
    assert "k" in initializers(proto)
    # Unused before: left as they were.
    unused = {"w", "shape", "q", "s"} - set(
        chain.replace("(", " ").replace(")", " ").replace(",", " ").split()
    )
    assert set(initializers(proto)) == {"k"} | unused
    np.testing.assert_array_equal(run(proto, {"x": X})[0], expected)


def test_a_constant_node_keeps_every_bit() -> None:
    proto = model("k = Constant<value = float[1,4,1,1] {0.1, -0.5, 0.3, 3.0}>() [c] y = Conv(x, k)")
    tensor = proto.graph.node[0].attribute[0].t
    bits = onnx.numpy_helper.to_array(tensor).tobytes()
    fold(proto, "c")
    assert initializers(proto)["k"].tobytes() == bits


def test_what_others_read_stays_for_them() -> None:
    proto = model("""
        k = Transpose<perm=[1,0,2,3]>(w)
        [one] a = Conv(x, k)
        [two] b = Conv(a, k)
        [other] y = Conv(b, k)
    """)
    expected = run(proto, {"x": X})[0]
    other = proto.graph.node[3].SerializeToString()
    assert len(fold(proto, "one", "two")) == 2
    assert [n.op_type for n in proto.graph.node] == ["Transpose", "Conv", "Conv", "Conv"]
    # One initializer for both.
    assert [n.input[1] for n in proto.graph.node[1:]] == ["k_1", "k_1", "k"]
    assert proto.graph.node[3].SerializeToString() == other
    np.testing.assert_array_equal(run(proto, {"x": X})[0], expected)
    # All that read it are selected: it keeps its name.
    assert len(fold(proto, "one", "two", "other")) == 1
    assert [n.input[1] for n in proto.graph.node] == ["k_1", "k_1", "k"]


def test_an_output_of_the_model_stays() -> None:
    proto = text_model(
        "net (float[N,4,9,9] x) => (float[N,4,7,7] y, float[4,4,3,3] k)"
        "{ k = Neg(w) [c] y = Conv(x, k) }",
        {"w": W},
    )
    expected = run(proto, {"x": X})
    fold(proto, "c")
    assert list(proto.graph.node[-1].input) == ["x", "k_1"]
    for found, each in zip(run(proto, {"x": X}), expected, strict=True):
        np.testing.assert_array_equal(found, each)


def test_biases_and_fully_connected_layers() -> None:
    proto = text_model(
        """net (float[N,4] x) => (float[N,4] y) {
            b = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>()
            k = Transpose(m)
            [one] a = Gemm(x, m, b)
            [two] y = MatMul(a, k)
        }""",
        {"m": W[0, 0, 0, 0] + np.eye(4, dtype=np.float32)},
    )
    x = RNG.standard_normal((2, 4)).astype(np.float32)
    expected = run(proto, {"x": x})[0]
    assert len(fold(proto, "one", "two")) == 2
    assert [n.op_type for n in proto.graph.node] == ["Gemm", "MatMul"]
    assert set(initializers(proto)) == {"m", "b", "k"}
    np.testing.assert_array_equal(run(proto, {"x": x})[0], expected)


def test_layers_not_selected_and_those_refused_are_untouched() -> None:
    body = """
        k = Transpose<perm=[1,0,2,3]>(w)
        [one] a = Conv(x, k)
        v = Neg(x)
        [two] y = ConvInteger(q, q)
    """
    proto = model(body.replace("[two] y = ConvInteger(q, q)", "[two] y = Neg(a)"))
    before = proto.SerializeToString(deterministic=True)
    assert FoldConstantsPass([]).run(proto).changes == ()
    assert FoldConstantsPass(["v", "two", "nothing"]).run(proto).changes == ()
    assert proto.SerializeToString(deterministic=True) == before


def test_the_rest_of_a_light_model_is_untouched(light_folder: Path) -> None:
    proto = load_model(light_folder / "light_squeezenet.onnx")
    rest = without(proto, "node", "initializer", "input")
    layers = find_layers(proto)
    kept = {layer.name: layer.node.SerializeToString() for layer in layers}
    x = RNG.standard_normal((1, 3, 224, 224)).astype(np.float32)
    name = next(v.name for v in proto.graph.input if v.name not in initializers(proto))
    expected = run(proto, {name: x})[0]
    fold(proto, *(layer.name for layer in layers))
    assert not any(n.op_type == "ConstantOfShape" for n in proto.graph.node)
    assert without(proto, "node", "initializer", "input") == rest
    assert {each.name: each.node.SerializeToString() for each in find_layers(proto)} == kept
    assert {t.name for t in proto.graph.initializer} < {v.name for v in proto.graph.input}  # IR 3
    np.testing.assert_array_equal(run(proto, {name: x})[0], expected)


def test_case_3_optional_inputs_are_frozen_for_these_layers_alone() -> None:
    proto = model("h = Neg(w) [c] y = Conv(x, h) [d] z = Conv(x, w)")
    proto.graph.output.append(onnx.ValueInfoProto(name="z"))
    proto.graph.input.append(
        onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, W.shape)
    )
    result = FoldConstantsPass(["c"]).run(proto)
    assert result.frozen == ("w",)
    assert "'w'" in result.notes[0]
    np.testing.assert_array_equal(initializers(proto)["h"], -W)
    assert [value.name for value in proto.graph.input] == ["x", "w"]
    other = run(proto, {"x": X, "w": 2 * W})
    np.testing.assert_array_equal(other[0], run(proto, {"x": X})[0])
    assert not np.array_equal(other[1], run(proto, {"x": X})[1])
    assert FoldConstantsPass([]).run(proto).frozen == ()
