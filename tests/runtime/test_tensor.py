"""Descriptions of inputs agree with onnxruntime's, and shapes given by the user are checked."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_lowrank.errors import DataError
from onnx_lowrank.runtime import TensorInfo, fix_shapes, model_inputs, open_session

TYPES = ["FLOAT", "FLOAT16", "DOUBLE", "INT8", "UINT8", "INT64", "BOOL", "STRING"]


def test_a_model_and_its_session_describe_the_same_inputs() -> None:
    values = [
        helper.make_tensor_value_info(f"x{i}", getattr(TensorProto, t), ["N", i + 1, None])
        for i, t in enumerate(TYPES)
    ]
    values.append(helper.make_tensor_value_info("given", TensorProto.FLOAT, [2]))
    graph = helper.make_graph(
        [helper.make_node("Identity", [v.name], [f"y_{v.name}"]) for v in values],
        "types",
        values,
        [
            helper.make_tensor_value_info(f"y_{v.name}", v.type.tensor_type.elem_type, None)
            for v in values
        ],
        [numpy_helper.from_array(np.zeros(2, np.float32), "given")],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    infos = model_inputs(model)
    assert infos == open_session(model).inputs
    assert [i.name for i in infos] == [f"x{i}" for i in range(len(TYPES))]
    assert [i.dtype for i in infos] == [
        np.dtype(t)
        for t in ("float32", "float16", "float64", "int8", "uint8", "int64", "bool", np.str_)
    ]


def test_scalars_unknown_ranks_and_other_types_are_told_apart_in_a_model() -> None:
    values = [
        helper.make_tensor_value_info("scalar", TensorProto.FLOAT, []),
        helper.make_tensor_value_info("anything", TensorProto.FLOAT, None),
        helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("brain", TensorProto.BFLOAT16, [1]),
    ]
    graph = helper.make_graph([], "kinds", values, [])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    scalar, anything, several, brain = model_inputs(model)
    assert (scalar.shape, scalar.rank) == ((), 0)
    assert (anything.shape, anything.rank) == (None, None)
    assert several.dtype is None
    assert brain.dtype is None
    assert anything.describe_shape() == "[...]"


def test_a_negative_size_is_open_as_in_a_session() -> None:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [-1, 3]) for n in "xy"]
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "open", values[:1], values[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    infos = model_inputs(model)
    assert infos == open_session(model).inputs
    assert infos[0].shape == (None, 3)
    assert fix_shapes(infos, {"x": (5, 3)})[0].shape == (5, 3)


IMAGE = TensorInfo("x", "tensor(float)", ("N", 3, None, 8))


def test_given_sizes_fill_in_what_is_open() -> None:
    (info,) = fix_shapes([IMAGE], {"x": (1, 3, 4, 8)})
    assert info.shape == (1, 3, 4, 8)
    assert fix_shapes([IMAGE], {}) == (IMAGE,)
    assert IMAGE.describe_shape() == "[N, 3, ?, 8]"


@pytest.mark.parametrize("shape", [(1, 3, 4, 9), (1, 3, 4), (0, 3, 4, 8), (1, 3, -1, 8)])
def test_sizes_that_contradict_the_model_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"does not fit input 'x' \[N, 3, \?, 8\]"):
        fix_shapes([IMAGE], {"x": shape})


def test_an_unknown_input_suggests_the_near_ones() -> None:
    info = TensorInfo("image", "tensor(float)", None)
    with pytest.raises(DataError, match="no input 'imag'; did you mean 'image'"):
        fix_shapes([info], {"imag": (1,)})
