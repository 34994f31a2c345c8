"""Parts of models: which nodes lie between tensors, and that the part computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.section import cut_section, find_section
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
    found = find_section(model(), end, known)
    assert (set(found.starts), set(found.nodes)) == (starts, nodes)


def test_a_section_computes_the_same() -> None:
    whole = model()
    values = {"x": np.array([1, 2], np.float32), "b": np.array([5, 7], np.float32)}
    found = find_section(whole, "d", values.keys())
    cut = cut_section(whole, found, values)
    assert [t.name for t in cut.graph.initializer] == ["flag"]
    np.testing.assert_array_equal(open_session(cut).run(values)["d"], [-5, -7])


def test_an_unknown_tensor_is_refused() -> None:
    with pytest.raises(ModelError, match="no tensor 'nowhere'"):
        find_section(model(), "nowhere", {"x"})
