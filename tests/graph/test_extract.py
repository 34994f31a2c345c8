"""Parts of models: which nodes lie between tensors, and that the part computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.extract import extract_region, find_region
from onnx_lowrank.runtime import open_session


def model() -> onnx.ModelProto:
    """``c = (x + w) * x`` and, by an If whose bodies read from outside, ``d = c`` or ``-b``."""
    outer = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    bodies = [
        helper.make_graph([helper.make_node(op, [name], ["inner"])], op, [], [outer])
        for op, name in (("Identity", "c"), ("Neg", "b"))
    ]
    nodes = [
        helper.make_node("Add", ["x", "w"], ["b"]),
        helper.make_node("Mul", ["b", "x"], ["c"]),
        helper.make_node("If", ["flag"], ["d"], then_branch=bodies[0], else_branch=bodies[1]),
    ]
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("d", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.array([3, 4], np.float32), "w"),
            numpy_helper.from_array(np.array(False), "flag"),
        ],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


@pytest.mark.parametrize(
    ("end", "known", "starts", "nodes"),
    [
        ("c", {"x"}, {"x"}, {0, 1}),
        ("c", {"x", "b"}, {"x", "b"}, {1}),
        ("d", {"x", "b"}, {"x", "b"}, {1, 2}),
        ("d", {"x", "b", "c"}, {"b", "c"}, {2}),
        ("c", {"x", "c"}, {"c"}, set()),
    ],
)
def test_the_way_back_ends_at_known_tensors(
    end: str, known: set[str], starts: set[str], nodes: set[int]
) -> None:
    found = find_region(model(), end, known)
    assert (set(found.starts), set(found.nodes)) == (starts, nodes)


def test_a_region_computes_the_same() -> None:
    complete = model()
    values = {"x": np.array([1, 2], np.float32), "b": np.array([5, 7], np.float32)}
    found = find_region(complete, "d", values.keys())
    cut = extract_region(complete, found, values)
    assert [t.name for t in cut.graph.initializer] == ["flag"]
    np.testing.assert_array_equal(open_session(cut).run(values)["d"], [-5, -7])


def test_an_unknown_tensor_is_refused() -> None:
    with pytest.raises(ModelError, match="no tensor 'nowhere'"):
        find_region(model(), "nowhere", {"x"})


def parts() -> onnx.ModelProto:
    """Split, a node with an output left out, and an If over parts; weights listed as in IR 3."""
    body = {
        key: helper.make_graph(
            [helper.make_node(op, ["s1"], [f"{op}.out"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}.out", TensorProto.FLOAT, None)],
        )
        for key, op in (("then_branch", "Neg"), ("else_branch", "Abs"))
    }
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["m"]),
        helper.make_node("Split", ["m"], ["s0", "s1", "s2"], axis=1),
        helper.make_node("MaxPool", ["s0"], ["p", ""], kernel_shape=[1, 1]),
        helper.make_node("If", ["flag"], ["i"], **body),
        helper.make_node("Add", ["p", "i"], ["a"]),
        helper.make_node("Sum", ["a", "s1", "s2", "p"], ["y"]),
    ]
    weights = {"w": np.arange(1, 7, dtype=np.float32).reshape(6, 1, 1), "flag": np.array(True)}
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(
        nodes,
        "parts",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6, 2, 2]),
            *(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors),
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "s1")],
        tensors,
    )
    return helper.make_model(graph, ir_version=3, opset_imports=[helper.make_opsetid("", 11)])


TENSORS = ("m", "s0", "s1", "s2", "p", "i", "a", "y")


@pytest.mark.parametrize("end", TENSORS)
@pytest.mark.parametrize("seed", range(12))
def test_any_part_from_any_known_tensors_computes_the_same(end: str, seed: int) -> None:
    whole = parts()
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 6, 2, 2)).astype(np.float32)
    ends = onnx.ModelProto()
    ends.CopyFrom(whole)
    have = {value.name for value in ends.graph.output}
    for name in TENSORS:
        if name not in have:
            ends.graph.output.add().name = name
    values = {"x": x, **open_session(ends).run({"x": x}, None)}
    known = {name for name in TENSORS if name != end and rng.random() < 0.4}
    found = find_region(whole, end, known | {"x"})
    starts = {name: values[name] for name in found.starts}
    cut = extract_region(whole, found, starts)
    np.testing.assert_array_equal(open_session(cut).run(starts, [end])[end], values[end])


def test_an_output_that_is_known_is_read_not_made_again() -> None:
    whole = parts()
    values = {name: np.zeros((1, size, 2, 2), np.float32) for name, size in (("m", 6), ("s1", 2))}
    cut = extract_region(whole, find_region(whole, "y", values), values)
    split = next(node for node in cut.graph.node if node.op_type == "Split")
    assert list(split.output) == ["s0", "s1.again", "s2"]
    assert list(whole.graph.node[1].output) == ["s0", "s1", "s2"]
    assert [value.name for value in cut.graph.input][:2] == list(values)
