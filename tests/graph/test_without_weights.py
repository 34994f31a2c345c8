from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import text_model
from onnx import TensorProto, helper, numpy_helper

from onnx_lowrank.graph.without_weights import all_tensors, split_weights, tensor_bytes


@pytest.mark.parametrize("kind", TensorProto.DataType.values())
def test_bytes_of_every_type(kind: int) -> None:
    name = TensorProto.DataType.Name(kind)
    tensor = TensorProto(data_type=kind, dims=[3, 5])
    if name in ("UNDEFINED",):
        assert tensor_bytes(tensor) == 0
        return
    if name == "STRING":
        return  # has no raw form
    array = np.zeros((3, 5), helper.tensor_dtype_to_np_dtype(kind))
    assert tensor_bytes(tensor) == len(numpy_helper.from_array(array).raw_data)
    assert tensor_bytes(TensorProto(data_type=kind, dims=[0])) == 0
    assert tensor_bytes(TensorProto(data_type=kind)) == -(-array.itemsize // 1)


def test_without_weights_a_model_differs_only_in_the_data_of_large_weights() -> None:
    large = np.arange(100, dtype=np.float32)
    model = text_model(
        "net (float[100] x) => (float[100] y) { a = Add(x, large) y = Mul(a, small) }",
        {"large": large, "small": large[:1]},
    )
    model.graph.initializer[0].doc_string = ""  # set to nothing is not the same as not set
    model.graph.initializer.append(numpy_helper.from_array(np.array(["text"] * 99, object), "s"))
    model.metadata_props.add(key="k", value="v")
    model.graph.value_info.append(helper.make_tensor_value_info("a", 1, [100]))
    before = model.SerializeToString(deterministic=True)
    light, pairs = split_weights(model, above=64)
    assert model.SerializeToString(deterministic=True) == before
    ((tensor, copy),) = pairs
    assert tensor is model.graph.initializer[0]
    assert copy is light.graph.initializer[0]
    assert copy.raw_data == b""
    copy.raw_data = large.tobytes()
    assert light.SerializeToString(deterministic=True) == before


def test_tensors_are_found_everywhere() -> None:
    def tensor(name: str) -> onnx.TensorProto:
        return numpy_helper.from_array(np.zeros(1, np.float32), name)

    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=tensor("attribute of a body"))],
        "inner",
        [],
        [],
        [tensor("body")],
    )
    nest = helper.make_graph([helper.make_node("If", ["a"], [], then_branch=inner)], "n", [], [])
    sparse = onnx.SparseTensorProto(values=tensor("values"), indices=tensor("indices"), dims=[9])
    graph = helper.make_graph(
        [helper.make_node("If", ["a"], [], then_branch=nest)], "g", [], [], [tensor("main")]
    )
    graph.sparse_initializer.append(sparse)
    constant = helper.make_node("Constant", [], ["c"], value=tensor("function"))
    model = helper.make_model(
        graph, ir_version=8, functions=[helper.make_function("d", "f", [], ["c"], [constant], [])]
    )
    assert [each.name for each in all_tensors(model)] == [
        "main",
        "values",
        "indices",
        "body",
        "attribute of a body",
        "function",
    ]
