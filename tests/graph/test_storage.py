"""Stored weights are permuted as they are stored: same types, same sizes, or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from builders import initializers, run, text_model
from numpy.typing import NDArray

from onnx_lowrank.graph.check import check_model
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.storage import can_permute, permute

RNG = np.random.default_rng(0)
ORDER = np.array([2, 0, 3, 1])
X = RNG.standard_normal((2, 4, 5, 5)).astype(np.float32)
W = RNG.standard_normal((4, 4, 3, 3)).astype(np.float32)
Q = RNG.integers(-100, 100, (4, 4, 3, 3)).astype(np.int8)
WEIGHTS: dict[str, NDArray[Any]] = {
    "w": W,
    "h": W.astype(np.float16),
    "q": Q,
    "one": np.array(0.1, np.float32),
    "four": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
    "zeros": np.array([1, 2, 3, 4], np.int8),
    "shape": np.array([4, 4, 3, 3]),
}


def build(chain: str, *, more: str = "", opset: int = 16) -> onnx.ModelProto:
    read = {name for name in WEIGHTS if name in f"{chain} {more}".replace(",", " ").split()}
    read |= {n for n in WEIGHTS if f"({n}" in chain + more or f", {n}" in chain + more}
    return text_model(
        f"net (float[2,4,5,5] x) => (float[A,B,C,D] y) {{ {chain} y = Conv(x, k) {more} }}",
        {name: WEIGHTS[name] for name in sorted(read)},
        opset=opset,
    )


def conv_of(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "Conv")


def stored(model: onnx.ModelProto) -> list[tuple[str, tuple[int, ...]]]:
    return sorted((v.dtype.name, v.shape) for v in initializers(model).values())


CHAINS = {
    "initializer": "k = Identity(w)",
    "cast": "k = Cast<to=1>(h)",
    "casts": "d = Cast<to=11>(h) k = Cast<to=1>(d)",
    "transpose": "k = Transpose<perm=[1,0,2,3]>(w)",
    "transpose of all axes": "t = Transpose<perm=[2,3,1,0]>(w) k = Transpose<perm=[3,2,0,1]>(t)",
    "one scale": "k = DequantizeLinear(q, one)",
    "a scale for each filter": "k = DequantizeLinear<axis=0>(q, four, zeros)",
    "a scale for each channel": "k = DequantizeLinear(q, four, zeros)",
    "from the end": "k = DequantizeLinear<axis=-4>(q, four)",
    "transposed and quantised": (
        "t = Transpose<perm=[1,0,2,3]>(q) k = DequantizeLinear<axis=0>(t, four)"
    ),
}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("case", [*CHAINS, "constant"])
def test_what_is_stored_is_permuted(case: str, axis: int) -> None:
    if case == "constant":
        model = build("k = Identity(w)")
        tensor = model.graph.initializer[0]
        model.graph.node[0].CopyFrom(onnx.helper.make_node("Constant", [], ["k"], value=tensor))
        before = [("float32", (4, 4, 3, 3))]
        del model.graph.initializer[:]
    else:
        model = build(CHAINS[case])
        if case == "initializer":  # directly
            model.graph.node[1].input[1] = "w"
            del model.graph.node[0]
        before = stored(model)
    editor = GraphEditor(model)
    conv = conv_of(model)
    old = editor.constant(conv.input[1])
    assert old is not None
    assert can_permute(editor, conv, 1, axis)
    names = {name for node in model.graph.node for name in node.output} - {"y"}
    permute(editor, conv, 1, axis, ORDER)
    editor.remove_dead()
    check_model(model)
    assert stored(model) == before
    new = GraphEditor(model).constant(conv_of(model).input[1])
    assert new is not None
    np.testing.assert_array_equal(new, np.take(old, ORDER, axis=axis))
    left = {name for node in model.graph.node for name in node.output} - {"y"}
    assert not names & left, "tensors in another order have other names"


@pytest.mark.parametrize(
    ("chain", "more"),
    [
        ("k = Reshape(w, shape)", ""),
        ("k = Neg(w)", ""),
        ("k = Cast<to=1>(h)", "z = Cast<to=11>(h)"),
        ("k = DequantizeLinear(q, four)", "z = Neg(four)"),
        ("k = Cast<to=1>(h)", "z = Neg(k)"),
        ("n = Cast<to=1>(h) k = custom.Cast(n)", ""),
    ],
)
def test_what_others_read_or_nobody_knows_stays(chain: str, more: str) -> None:
    model = build(chain, more=more)
    model.opset_import.append(onnx.helper.make_opsetid("custom", 1))
    if more:
        model.graph.output.append(onnx.ValueInfoProto(name="z"))
    editor = GraphEditor(model)
    before = model.SerializeToString()
    assert not can_permute(editor, conv_of(model), 1, 1)
    assert model.SerializeToString() == before


def test_an_input_that_a_caller_may_override_stays() -> None:
    model = build("k = Cast<to=1>(h)")
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT16, [4, 4, 3, 3])
    )
    assert not can_permute(GraphEditor(model), conv_of(model), 1, 1)


def test_a_layer_computes_the_same_of_channels_in_another_order() -> None:
    model = build("k = DequantizeLinear(q, four, zeros)")
    (expected,) = run(model, {"x": X})
    editor = GraphEditor(model)
    permute(editor, conv_of(model), 1, 1, ORDER)
    (found,) = run(model, {"x": X[:, ORDER]})
    np.testing.assert_allclose(found, expected, rtol=0, atol=36 * 2.0**-24 * np.abs(expected).max())
