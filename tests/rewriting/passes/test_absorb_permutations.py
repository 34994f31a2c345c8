"""Permutations of channels move into weights; outputs stay, in onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_lowrank.graph.check import check_model
from onnx_lowrank.rewriting.passes.absorb_permutations import AbsorbPermutationsPass

C = 6
PERMUTATION = np.array([3, 1, 5, 0, 4, 2])


def build(
    nodes: list[onnx.NodeProto], outputs: tuple[str, ...] = ("y",), **constants: NDArray[np.generic]
) -> onnx.ModelProto:
    values = {"order": PERMUTATION, **constants}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", C, 8, 8])],
        [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", "c", "h", "w"])
            for name in outputs
        ],
        [
            numpy_helper.from_array(
                v.astype(np.float32) if v.dtype.kind == "f" else v.astype(np.int64), k
            )
            for k, v in values.items()
        ],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def conv(x: str, weight: str, y: str, *, bias: str | None = None, group: int = 1) -> onnx.NodeProto:
    inputs = [x, weight] + ([bias] if bias else [])
    return helper.make_node("Conv", inputs, [y], name=f"conv_{y}", group=group)


def gather(x: str, y: str, name: str = "layer/order", indices: str = "order") -> onnx.NodeProto:
    return helper.make_node("Gather", [x, indices], [y], name=name, axis=1)


def weight(rows: int, columns: int, *, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal((rows, columns, 3, 3))


def run(model: onnx.ModelProto) -> list[NDArray[np.float32]]:
    x = np.random.default_rng(9).standard_normal((2, C, 8, 8)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": x}))


def absorbed(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int, tuple[str, ...]]:
    """Run the pass; return the model, the Gathers left, and what was refused."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    result = AbsorbPermutationsPass(["layer"]).run(copy)
    check_model(copy)
    for a, b in zip(run(model), run(copy), strict=True):
        # The same products in another order: one rounding for each of at most 54.
        np.testing.assert_allclose(b, a, rtol=0, atol=54 * 2.0**-24 * np.abs(a).max())
    before = copy.SerializeToString()
    assert not AbsorbPermutationsPass(["layer"]).run(copy).modified
    assert copy.SerializeToString() == before
    left = sum(node.op_type == "Gather" for node in copy.graph.node)
    return copy, left, tuple(refusal.reason for refusal in result.refusals)


def relu(x: str, y: str) -> onnx.NodeProto:
    return helper.make_node("Relu", [x], [y], name=f"relu_{y}")


def test_case_1_readers_take_it_through_channelwise_ops() -> None:
    pool = helper.make_node("MaxPool", ["b"], ["c"], name="pool", kernel_shape=[2, 2])
    model = build(
        [gather("x", "a"), relu("a", "b"), pool, conv("c", "w", "y"), conv("b", "v", "z")],
        outputs=("y", "z"),
        w=weight(4, C),
        v=weight(5, C, seed=1),
    )
    # The Gather's input is the model's own: only the readers can take the other order.
    copy, left, _ = absorbed(model)
    assert left == 0
    names = {name for node in copy.graph.node for name in node.output}
    assert not names & {"a", "b", "c"}, "tensors in another order have other names"


def test_case_1_two_gathers_become_one() -> None:
    nodes = [
        conv("x", "w", "s"),
        gather("s", "a"),
        relu("a", "b"),
        gather("b", "c", name="layer/inputs", indices="other"),
        helper.make_node("Softmax", ["c"], ["y"], axis=1),
    ]
    other = np.array([1, 0, 3, 2, 5, 4])
    _, left, _ = absorbed(build(nodes, w=weight(C, C), other=other))
    assert left == 0  # composed, and then taken by the rows of the first Conv


def test_case_2_the_writer_takes_it() -> None:
    model = build(
        [conv("x", "w", "a", bias="b"), relu("a", "r"), gather("r", "y")],
        w=weight(C, C),
        b=np.arange(6.0),
    )
    assert absorbed(model)[1] == 0


@pytest.mark.parametrize(("order", "left"), [([1, 0, 2, 5, 3, 4], 0), ([3, 1, 5, 0, 4, 2], 1)])
def test_case_2_a_grouped_writer_takes_what_keeps_its_groups(order: list[int], left: int) -> None:
    nodes = [conv("x", "w", "a", group=2), gather("a", "y")]
    copy, found, refused = absorbed(build(nodes, w=weight(C, 3), order=np.array(order)))
    assert found == left
    assert len(refused) == left
    assert copy.graph.output[0].name == "y"


@pytest.mark.parametrize("blocker", ["output", "second reader", "other op"])
def test_refused_where_somebody_needs_the_order(blocker: str) -> None:
    nodes = [conv("x", "w", "a"), gather("a", "b"), conv("b", "v", "y")]
    outputs: tuple[str, ...] = ("y",)
    if blocker == "output":
        outputs = ("y", "b", "a")
    elif blocker == "second reader":
        nodes += [helper.make_node("Softmax", ["b"], ["z"], axis=1), relu("a", "q")]
        outputs = ("y", "z", "q")
    else:
        nodes[0] = helper.make_node("LRN", ["x"], ["a"], size=3)
        nodes[2] = helper.make_node("LRN", ["b"], ["y"], size=3)
    model = build(nodes, outputs, w=weight(C, C), v=weight(4, C, seed=1))
    if blocker == "other op":
        del model.graph.initializer[:]
        model.graph.initializer.append(
            numpy_helper.from_array(PERMUTATION.astype(np.int64), "order")
        )
    _, left, refused = absorbed(model)
    assert left == 1
    assert "needs this order" in refused[0]


def test_a_gather_in_order_vanishes_and_one_of_the_user_stays() -> None:
    nodes = [
        conv("x", "w", "a"),
        gather("a", "b", indices="identity"),
        gather("b", "y", name="users_own"),
    ]
    copy, left, _ = absorbed(build(nodes, w=weight(C, C), identity=np.arange(C)))
    assert left == 1
    assert copy.graph.node[-1].name == "users_own"


@pytest.mark.parametrize("place", ["in front of the Gather", "behind it"])
def test_an_op_named_like_a_standard_one_keeps_its_order(place: str) -> None:
    """A model-local function called Relu scales every channel by its own factor."""
    act = helper.make_node("Relu", ["a"], ["b"], name="act", domain="my")
    if place == "behind it":
        nodes = [gather("x", "a"), act, conv("b", "w", "y")]
    else:
        nodes = [conv("x", "w", "a"), act, gather("b", "y")]
    model = build(nodes, w=weight(C, C))
    model.opset_import.append(helper.make_opsetid("my", 1))
    factors = np.arange(1.0, C + 1).astype(np.float32).reshape(1, C, 1, 1)
    constant = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(factors))
    body = [constant, helper.make_node("Mul", ["u", "k"], ["v"])]
    imports = [helper.make_opsetid("", 13)]
    model.functions.append(helper.make_function("my", "Relu", ["u"], ["v"], body, imports))
    _, left, refused = absorbed(model)
    assert left == 1
    assert len(refused) == 1


def test_a_quantised_weight_of_a_neighbour_stays_quantised() -> None:
    model = build([gather("x", "a"), conv("a", "w", "y")], w=weight(4, C))
    stored = np.random.default_rng(1).integers(-100, 100, (4, C, 3, 3)).astype(np.int8)
    scale = np.array(0.01, np.float32)
    model.graph.initializer.extend(
        [numpy_helper.from_array(stored, "q"), numpy_helper.from_array(scale, "s")]
    )
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "s"], ["k"]))
    model.graph.node[-1].input[1] = "k"
    model.graph.initializer.remove(next(t for t in model.graph.initializer if t.name == "w"))
    copy, left, _ = absorbed(model)
    assert left == 0
    kinds = {t.data_type for t in copy.graph.initializer if len(t.dims) == 4}
    assert kinds == {onnx.TensorProto.INT8}
    assert copy.ByteSize() <= model.ByteSize() + 32  # names


def test_a_weight_that_is_computed_or_shared_keeps_its_order() -> None:
    neg = helper.make_node("Neg", ["w"], ["k"])
    computed = build([neg, gather("x", "a"), conv("a", "k", "y")], w=weight(4, C))
    shared = build(
        [gather("x", "a"), conv("a", "w", "y"), conv("x", "w", "z")],
        outputs=("y", "z"),
        w=weight(4, C),
    )
    for model in (computed, shared):
        copy, left, refused = absorbed(model)
        assert (left, len(refused)) == (1, 1)
        assert copy.graph.initializer == model.graph.initializer
