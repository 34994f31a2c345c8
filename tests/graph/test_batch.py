from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.batch import set_batch

Build = Callable[..., onnx.ModelProto]


def _dims(values: object) -> list[list[int | str]]:
    return [
        [
            d.dim_value if d.HasField("dim_value") else d.dim_param
            for d in v.type.tensor_type.shape.dim
        ]
        for v in values  # type: ignore[attr-defined]
    ]


def _shape_of(model: onnx.ModelProto, node: str) -> list[int]:
    tensors = {t.name: t for t in model.graph.initializer}
    reshape = next(n for n in model.graph.node if n.name == node)
    return list(numpy_helper.to_array(tensors[reshape.input[1]]))


def test_inputs_outputs_and_reshapes_follow(residual_net: Build) -> None:
    model = residual_net(2)
    before = model.SerializeToString()
    changed = set_batch(model, 5, inputs=["image"])
    assert model.SerializeToString() == before
    assert _dims(changed.graph.input) == [[5, 3, 32, 32]]
    assert _dims(changed.graph.output) == [[5, 10]]
    assert _shape_of(changed, "reshape") == [5, 512]
    onnx.checker.check_model(changed, full_check=True)
    assert changed.ir_version == model.ir_version


@pytest.mark.parametrize("batch", ["N", 3])
def test_a_model_that_takes_it_already_stays(residual_net: Build, batch: int | str) -> None:
    model = residual_net(batch)
    assert set_batch(model, 3, inputs=["image"]) is model


MIXED = """
<ir_version: 8, opset_import: ["" : 13]>
net (float[1,4] x, float[1,4] table) => (float[1,4] y, float[2,2] z)
<int64[2] shape = {1, 4}, int64[2] other = {2, 2}, float[4] w = {1.0, 2.0, 3.0, 4.0}>
{
    [weight] k = Reshape(w, shape)
    [data] d = Reshape(x, shape)
    [again] e = Reshape(d, shape)
    a = Mul(e, k)
    y = Add(a, table)
    [elsewhere] z = Reshape(w, other)
}
"""


def test_what_does_not_carry_the_batch_stays() -> None:
    model = parser.parse_model(MIXED)
    changed = set_batch(model, 3, inputs=["x"])
    assert _dims(changed.graph.input) == [[3, 4], [1, 4]]
    assert _dims(changed.graph.output) == [[3, 4], [2, 2]]
    assert _shape_of(changed, "weight") == [1, 4]  # the Reshape of a weight
    assert _shape_of(changed, "data") == _shape_of(changed, "again") == [3, 4]
    assert _shape_of(changed, "elsewhere") == [2, 2]
    names = [t.name for t in changed.graph.initializer]
    assert len(names) == len(set(names))
    assert len(names) == len(model.graph.initializer) + 1


def test_shapes_in_constant_nodes_and_taken_names() -> None:
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[1,2,2] x) => (float[1,4] y) {
            s = Constant<value = int64[2] {1, 4}>()
            s_batch6 = Abs(x)
            [data] y = Reshape(s_batch6, s)
        }
        """
    )
    changed = set_batch(model, 6, inputs=["x"])
    assert _shape_of(changed, "data") == [6, 4]
    onnx.checker.check_model(changed, full_check=True)


def test_inner_shapes_are_dropped(residual_net: Build) -> None:
    model = onnx.shape_inference.infer_shapes(residual_net(1))
    assert model.graph.value_info
    assert not set_batch(model, 2, inputs=["image"]).graph.value_info


def test_inputs_that_differ() -> None:
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[1,4] x, float[2,4] z) => (float[2,4] y) { y = Add(x, z) }
        """
    )
    with pytest.raises(ModelError, match=r"fix different batch sizes \(1, 2\)"):
        set_batch(model, 4, inputs=["x", "z"])


def test_the_value_of_a_shape_is_int64(residual_net: Build) -> None:
    changed = set_batch(residual_net(2), 5, inputs=["image"])
    tensors = {t.name: numpy_helper.to_array(t) for t in changed.graph.initializer}
    assert {v.dtype for n, v in tensors.items() if n.endswith("batch5")} == {np.dtype(np.int64)}
