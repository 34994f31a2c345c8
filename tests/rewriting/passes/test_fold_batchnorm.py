from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from builders import add_weights, initializers, run, text_model, without
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnx_lowrank.graph.check import check_model
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.rewriting.passes.base import PassResult
from onnx_lowrank.rewriting.passes.fold_batchnorm import FoldBatchNormPass

Arrays = dict[str, NDArray[Any]]
EPS = {np.float16: float(np.finfo(np.float16).eps), np.float32: float(np.finfo(np.float32).eps)}


def parameters(seed: int = 0, *, channels: int = 6, dtype: type = np.float32) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        "scale": rng.standard_normal(channels).astype(dtype),
        "shift": rng.standard_normal(channels).astype(dtype),
        "mean": rng.standard_normal(channels).astype(dtype),
        "variance": rng.uniform(0.1, 2, channels).astype(dtype),
    }


def model(
    *,
    bias: bool = True,
    attributes: str = "",
    conv: str = "",
    shape: str = "N,4,9,9",
    weight: tuple[int, ...] = (6, 4, 3, 3),
    ir_version: int = 8,
    opset: int = 13,
    dtype: type = np.float32,
    body: str = "",
    names: tuple[str, str] = ("[c]", "[bn]"),
) -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    kind = "float16" if dtype is np.float16 else "float"
    inputs = "x, w, b" if bias else "x, w"
    axes = ",".join("ABCDE"[: len(weight) - 2])
    text = f"""net ({kind}[{shape}] x) => ({kind}[N,6,{axes}] y) {{
        {names[0]} a = Conv{conv}({inputs})
        {names[1]} y = BatchNormalization{attributes}(a, scale, shift, mean, variance)
        {body}
    }}"""
    weights: Arrays = {"w": rng.standard_normal(weight).astype(dtype)}
    if bias:
        weights["b"] = rng.standard_normal(6).astype(dtype)
    weights |= parameters(dtype=dtype)
    return text_model(text, weights, ir_version=ir_version, opset=opset)


def fold(proto: onnx.ModelProto, *layers: str) -> PassResult:
    """Run the pass; the model is valid after it, and a second run changes nothing."""
    first = FoldBatchNormPass(layers).run(proto)
    check_model(proto)
    once = proto.SerializeToString(deterministic=True)
    second = FoldBatchNormPass(layers).run(proto)
    assert not second.modified
    assert second.refusals == first.refusals
    assert proto.SerializeToString(deterministic=True) == once
    return first


def refused(proto: onnx.ModelProto, reason: str) -> None:
    before = proto.SerializeToString(deterministic=True)
    result = FoldBatchNormPass(["c"]).run(proto)
    assert not result.modified
    (refusal,) = result.refusals
    assert refusal.layer == "c"
    assert refusal.reason == f"the BatchNormalization behind it stays: {reason}"
    assert proto.SerializeToString(deterministic=True) == before


def folds_exactly(proto: onnx.ModelProto, x: NDArray[Any]) -> None:
    """Fold and compare with before, within the rounding of either.

    With n products per output, summed in single precision, and the folded Conv of absolute values
    as size m (biases of both forms added), each form is off by at most (n + 2) eps32 m from its
    sums, and eps m from rounding the folded weights, the result, and what is between the two nodes.
    """
    old = initializers(proto)
    dtype = old["w"].dtype.type
    expected = run(proto, {"x": x})[0].astype(np.float64)
    result = fold(proto, "c")
    assert result.changes == ("c: BatchNormalization 'bn' folded in",)
    assert [n.op_type for n in proto.graph.node] == ["Conv"]
    assert list(proto.graph.node[0].output) == ["y"]
    found = run(proto, {"x": x})[0].astype(np.float64)

    size = onnx.ModelProto()
    size.CopyFrom(proto)
    factor = np.abs(old["scale"] / np.sqrt(old["variance"].astype(np.float64)))
    shifts = factor * (np.abs(old.get("b", np.zeros(6))) + np.abs(old["mean"])) + np.abs(
        old["shift"]
    )
    for tensor in size.graph.initializer:
        value = np.abs(initializers(size)[tensor.name])
        value = value if value.ndim > 1 else value + shifts.astype(dtype)
        tensor.CopyFrom(onnx.numpy_helper.from_array(value.astype(dtype), tensor.name))
    sizes = run(size, {"x": np.abs(x)})[0].astype(np.float64)
    bound = 2 * ((old["w"][0].size + 2) * EPS[np.float32] + EPS[dtype]) * sizes
    assert (np.abs(found - expected) <= bound).all()
    assert np.abs(expected).max() > 30 * bound.max()  # far below what there is to get wrong


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("ir_version", "opset", "attributes"),
    [
        (3, 6, "<is_test=1>"),
        (3, 7, ""),
        (3, 8, "<spatial=1>"),
        (4, 9, "<epsilon=0.01>"),
        (8, 13, "<momentum=0.5>"),
        (8, 14, "<training_mode=0>"),
        (8, 15, ""),
        (10, 17, "<epsilon=0.5>"),
    ],
)
def test_every_form(bias: bool, ir_version: int, opset: int, attributes: str) -> None:
    proto = model(bias=bias, ir_version=ir_version, opset=opset, attributes=attributes)
    if opset == 6:
        # The runtime has no opset 6 to compare with: the same computation in opset 7.
        result = FoldBatchNormPass(["c"]).run(proto)
        assert result.modified
        same = model(bias=bias, ir_version=3, opset=7)
        fold(same, "c")
        assert initializers(proto).keys() == initializers(same).keys()
        for name, value in initializers(same).items():
            np.testing.assert_array_equal(initializers(proto)[name], value)
        return
    x = np.random.default_rng(2).standard_normal((2, 4, 9, 9)).astype(np.float32)
    folds_exactly(proto, x)
    # In place of the old ones, by their names.
    names = {"w", "b"} if bias else {"w", "c.bias"}
    assert set(initializers(proto)) == names
    assert {v.name for v in proto.graph.input} == ({"x"} | names if ir_version < 4 else {"x"})


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("group", [1, 2])
def test_every_dimension(dtype: type, axes: int, group: int) -> None:
    proto = model(
        conv=f"<group={group}, strides={[2] * axes}, pads={[1] * 2 * axes}>",
        weight=(6, 4 // group, *(3,) * axes),
        shape=f"N,4,{','.join('9' * axes)}",
        dtype=dtype,
        bias=False,
    )
    x: NDArray[Any] = np.random.default_rng(2).standard_normal((2, 4, *(9,) * axes)).astype(dtype)
    folds_exactly(proto, x)
    assert {value.dtype.type for value in initializers(proto).values()} == {dtype}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), epsilon=st.sampled_from([0.0, 1e-5, 1e-3]))
def test_weights_are_folded_in_double_precision(seed: int, epsilon: float) -> None:
    """One rounding away from the value in exact arithmetic."""
    proto = model(attributes=f"<epsilon={epsilon}>")
    for tensor in list(proto.graph.initializer):
        if tensor.name in parameters():
            proto.graph.initializer.remove(tensor)
    add_weights(proto, parameters(seed))
    old = {name: value.astype(np.float64) for name, value in initializers(proto).items()}
    fold(proto, "c")
    new = initializers(proto)
    # The attribute itself is a float.
    factor = old["scale"] / np.sqrt(old["variance"] + float(np.float32(epsilon)))
    np.testing.assert_array_equal(
        new["w"], (old["w"] * factor[:, None, None, None]).astype(np.float32)
    )
    np.testing.assert_array_equal(
        new["b"], (old["shift"] + factor * (old["b"] - old["mean"])).astype(np.float32)
    )


def test_names_and_all_the_rest_stay() -> None:
    proto = model(names=("", ""))
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("a", 1, None))
    proto.metadata_props.add(key="k", value="v")
    rest = without(proto, "node", "initializer", "value_info")
    (layer,) = find_layers(proto)
    assert layer.name == "a"
    assert fold(proto, "a").modified
    (layer,) = find_layers(proto)
    assert (layer.name, layer.node.name, layer.node.output[0]) == ("a", "a", "y")
    assert not proto.graph.value_info
    assert without(proto, "node", "initializer", "value_info") == rest


def test_a_shared_weight_gets_a_copy() -> None:
    proto = model(body="[other] z = Conv(x, w)")
    before = initializers(proto)["w"].tobytes()
    other = proto.graph.node[2].SerializeToString()
    fold(proto, "c")
    assert initializers(proto)["w"].tobytes() == before
    assert proto.graph.node[1].SerializeToString() == other
    assert [n.input[1] for n in proto.graph.node] == ["w_1", "w"]


def test_shared_parameters_stay_for_the_others() -> None:
    proto = model(body="r = Relu(y) [o] z = BatchNormalization(r, scale, shift, mean, variance)")
    other = proto.graph.node[3].SerializeToString()
    fold(proto, "c")
    assert set(initializers(proto)) == {"w", "b", "scale", "shift", "mean", "variance"}
    assert proto.graph.node[2].SerializeToString() == other


def test_one_behind_the_other() -> None:
    proto = model()
    proto.graph.node[1].output[0] = "m"
    again = proto.graph.node.add()
    again.CopyFrom(proto.graph.node[1])
    again.name, again.input[0], again.output[0] = "bn2", "m", "y"
    old = initializers(proto)
    assert len(fold(proto, "c").changes) == 2
    assert [(n.op_type, n.output[0]) for n in proto.graph.node] == [("Conv", "y")]
    factor = old["scale"] / np.sqrt(old["variance"].astype(np.float64) + float(np.float32(1e-5)))
    once = (old["w"] * factor[:, None, None, None]).astype(np.float32)
    twice = (once * factor[:, None, None, None]).astype(np.float32)
    # The default of epsilon is a double here, a float in what a runtime reads: 1 ulp of the weight.
    np.testing.assert_array_max_ulp(initializers(proto)["w"], twice, maxulp=1)


# Refused


def test_used_elsewhere() -> None:
    refused(model(body="z = Relu(a)"), "'a' is used elsewhere too")
    proto = model()
    proto.graph.output.add().CopyFrom(proto.graph.output[0])
    proto.graph.output[1].name = "a"
    refused(proto, "'a' is used elsewhere too")
    inside = """z = If(f) <then_branch = t () => (p) { p = Neg(a) },
        else_branch = e () => (q) { q = Neg(x) }>"""
    proto = model(body=inside)
    add_weights(proto, {"f": np.array(True)})
    refused(proto, "'a' is used elsewhere too")


def test_training() -> None:
    refused(model(opset=14, attributes="<training_mode=1>"), "it is in training mode")
    refused(model(opset=6, ir_version=3), "it is in training mode")
    proto = model(opset=9)
    proto.graph.node[1].output.extend(["m", "v", "sm", "sv"])
    refused(proto, "it is in training mode")


def test_by_element() -> None:
    reason = "it normalises every element by itself (spatial=0)"
    refused(model(opset=8, ir_version=3, attributes="<spatial=0>"), reason)


def test_parameters_that_are_not_constant() -> None:
    proto = model()
    proto.graph.input.add().CopyFrom(onnx.helper.make_tensor_value_info("given", 1, [6]))
    proto.graph.node[1].input[3] = "given"
    refused(proto, "its parameter 'given' is not constant")


def test_parameters_that_are_computed() -> None:
    proto = model()
    proto.graph.node.insert(0, onnx.helper.make_node("Neg", ["scale"], ["minus"]))
    proto.graph.node[2].input[1] = "minus"
    plain = model()
    assert fold(proto, "c").modified
    assert fold(plain, "c").modified
    assert [n.op_type for n in proto.graph.node] == ["Conv"]
    np.testing.assert_array_equal(initializers(proto)["w"], -initializers(plain)["w"])


def test_values_out_of_range() -> None:
    proto = model(dtype=np.float16)
    for tensor in proto.graph.initializer:
        if tensor.name == "variance":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(6, 1e-7, np.float16), "variance"))
        if tensor.name == "scale":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(6, 6e4, np.float16), "scale"))
    refused(proto, "folded values leave the range of float16")
    negative = model()
    for tensor in negative.graph.initializer:
        if tensor.name == "variance":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(6, -1, np.float32), "variance"))
    refused(negative, "folded values leave the range of float32")


def test_what_is_not_selected_or_not_concerned_is_untouched() -> None:
    proto = model(body="[d] z = Conv(y, v)")
    add_weights(proto, {"v": np.ones((2, 6, 1, 1), np.float32)})
    before = proto.SerializeToString(deterministic=True)
    for layers in ([], ["d"], ["a"], ["bn"]):
        assert FoldBatchNormPass(layers).run(proto) == PassResult(False)
    assert proto.SerializeToString(deterministic=True) == before


def test_a_normalisation_that_reads_the_conv_as_a_parameter() -> None:
    proto = model()
    proto.graph.node[1].input[0], proto.graph.node[1].input[1] = "x", "a"
    assert FoldBatchNormPass(["c"]).run(proto) == PassResult(False)


def test_parameters_that_a_caller_may_override_are_frozen_and_named() -> None:
    proto = model()
    proto.graph.input.append(
        onnx.helper.make_tensor_value_info("scale", onnx.TensorProto.FLOAT, [6])
    )
    assert FoldBatchNormPass(["c"]).run(proto).frozen == ("scale",)
    assert [value.name for value in proto.graph.input] == ["x"]


def test_parameters_of_another_length() -> None:
    proto = model()
    tensor = next(t for t in proto.graph.initializer if t.name == "scale")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones(5, np.float32), "scale"))
    (refusal,) = FoldBatchNormPass(["c"]).run(proto).refusals
    assert "'scale' is not one value for each filter" in refusal.reason
