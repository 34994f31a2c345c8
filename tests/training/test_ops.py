"""Every op of the table against onnxruntime, in the forms that networks have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="torch is not installed: extra finetune")

from builders import run

from onnx_lowrank.errors import ModelError
from onnx_lowrank.training.executor import Network
from onnx_lowrank.training.ops import OPS

RNG = np.random.default_rng(0)


def rand(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


X = rand(2, 4, 9, 7)
WEIGHT, BIAS = rand(6, 4, 3, 3), rand(6)
STATISTICS = [rand(4), rand(4), rand(4), np.abs(rand(4)) + 0.5]

# Op, inputs, opset, attributes.
CASES: list[tuple[str, list[Any], int, dict[str, Any]]] = [
    ("Conv", [X, WEIGHT, BIAS], 13, {}),
    ("Conv", [X, WEIGHT], 13, {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("Conv", [X, WEIGHT], 13, {"pads": [0, 2, 1, 1], "dilations": [2, 1]}),
    ("Conv", [X, WEIGHT], 13, {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    ("Conv", [X, WEIGHT], 13, {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("Conv", [X, WEIGHT], 13, {"auto_pad": "VALID"}),
    ("Conv", [X, rand(8, 2, 3, 1), rand(8)], 13, {"group": 2}),
    ("Conv", [rand(2, 3, 11), rand(5, 3, 4)], 13, {"pads": [1, 2]}),
    ("Conv", [rand(1, 2, 5, 6, 4), rand(3, 2, 2, 3, 2)], 13, {"pads": [1, 1, 0, 0, 1, 1]}),
    ("MaxPool", [X], 13, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("MaxPool", [X], 13, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("MaxPool", [X], 13, {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [0, 0, 2, 1]}),
    ("MaxPool", [X], 13, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", [X], 13, {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1}),
    ("MaxPool", [X], 13, {"kernel_shape": [2, 2], "dilations": [2, 3]}),
    (
        "MaxPool",
        [X],
        13,
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    ("AveragePool", [X], 13, {"kernel_shape": [3, 3], "strides": [2, 2]}),
    ("AveragePool", [X], 13, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    (
        "AveragePool",
        [X],
        13,
        {"kernel_shape": [3, 3], "pads": [1, 0, 1, 2], "count_include_pad": 1},
    ),
    (
        "AveragePool",
        [X],
        13,
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, "pads": [0, 0, 1, 1]},
    ),
    ("GlobalAveragePool", [X], 13, {}),
    ("GlobalMaxPool", [X], 13, {}),
    ("BatchNormalization", [X, *STATISTICS], 13, {"epsilon": 1e-3}),
    ("BatchNormalization", [rand(5, 4), *STATISTICS], 9, {}),
    ("LRN", [X], 13, {"size": 3, "alpha": 0.7, "beta": 0.6, "bias": 2.0}),
    ("LRN", [X], 13, {"size": 5, "alpha": 1.0}),
    ("Resize", [X, None, np.array([1, 1, 2, 2], np.float32)], 13, {"mode": "linear"}),
    ("Resize", [X, None, None, ints(2, 4, 13, 7)], 13, {"mode": "linear"}),
    ("Resize", [X, None, np.array([1, 1, 3, 2], np.float32)], 13, {"mode": "nearest"}),
    (
        "Resize",
        [X, None, np.array([1, 1, 2, 2], np.float32)],
        13,
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    ("Gemm", [rand(3, 5), rand(5, 4), rand(4)], 13, {}),
    ("Gemm", [rand(3, 5), rand(4, 5), rand(1, 4)], 13, {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", [rand(5, 3), rand(5, 4)], 13, {"transA": 1}),
    ("MatMul", [rand(2, 3, 5), rand(5, 4)], 13, {}),
    ("Add", [X, rand(4, 1, 1)], 13, {}),
    ("Sub", [X, rand(7)], 13, {}),
    ("Mul", [X, rand(1)], 13, {}),
    ("Div", [X, np.float32(3)], 13, {}),
    ("Div", [ints(-7, 7, 9), ints(2, 2, -2)], 13, {}),
    ("Sum", [X, rand(9, 7), rand(4, 1, 1)], 13, {}),
    ("Relu", [X], 13, {}),
    ("LeakyRelu", [X], 13, {"alpha": 0.3}),
    ("PRelu", [X, rand(4, 1, 1)], 13, {}),
    ("Clip", [X, np.float32(-0.5), np.float32(0.4)], 13, {}),
    ("Clip", [X, None, np.float32(0.4)], 13, {}),
    ("Clip", [X], 10, {"min": 0.0, "max": 6.0}),
    ("Sigmoid", [X], 13, {}),
    ("Tanh", [X], 13, {}),
    ("Softmax", [rand(2, 3, 4)], 13, {}),
    ("Softmax", [rand(2, 3, 4)], 13, {"axis": 1}),
    ("Softmax", [rand(2, 3, 4)], 9, {"axis": 1}),
    ("LogSoftmax", [rand(2, 5)], 13, {}),
    ("Identity", [X], 13, {}),
    ("Dropout", [X], 13, {}),
    ("Concat", [X, rand(2, 3, 9, 7)], 13, {"axis": 1}),
    ("Reshape", [X, ints(0, -1, 3)], 13, {}),
    ("Flatten", [X], 13, {"axis": 2}),
    ("Flatten", [X], 13, {"axis": -1}),
    ("Flatten", [X], 13, {"axis": 0}),
    ("Transpose", [X], 13, {"perm": [0, 2, 3, 1]}),
    ("Transpose", [X], 13, {}),
    ("Squeeze", [rand(1, 3, 1, 2), ints(0, -2)], 13, {}),
    ("Squeeze", [rand(1, 3, 1, 2)], 11, {"axes": [2]}),
    ("Unsqueeze", [rand(3, 2), ints(-1, 0)], 13, {}),
    ("Unsqueeze", [rand(3, 2)], 9, {"axes": [1, 2]}),
    ("ReduceMean", [X], 13, {"axes": [2, 3], "keepdims": 0}),
    ("ReduceMean", [X, ints(1)], 18, {}),
    ("ReduceMean", [X], 13, {}),
    ("Gather", [X, ints(3, -1, 0)], 13, {"axis": 1}),
    ("Gather", [X, np.array(2, np.int64)], 13, {"axis": 2}),
    ("Gather", [X, np.array([[0, 1], [1, 0]], np.int64)], 13, {"axis": 0}),
    ("Slice", [X, ints(1, -3), ints(100, -1), ints(1, 2)], 13, {}),
    ("Slice", [X, ints(0), ints(9), ints(2), ints(2)], 13, {}),
    ("Slice", [X], 9, {"starts": [1], "ends": [3], "axes": [3]}),
    ("Pad", [X, ints(0, 1, 2, 0, 0, 0, 1, 3), np.float32(0.5)], 13, {}),
    ("Pad", [X], 9, {"pads": [0, 0, 1, 1, 0, 0, 2, 0], "value": 0.25}),
    ("Shape", [X], 13, {}),
    ("Shape", [X], 15, {"start": 1, "end": -1}),
    ("Cast", [X], 13, {"to": 7}),
    ("Cast", [ints(1, 2)], 13, {"to": 1}),
]


@pytest.mark.parametrize(
    ("op", "arrays", "opset", "attributes"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_torch_computes_what_onnxruntime_does(
    one_op: Callable[..., onnx.ModelProto],
    op: str,
    arrays: list[Any],
    opset: int,
    attributes: dict[str, Any],
) -> None:
    model = one_op(op, arrays, opset=opset, **attributes)
    (expected,) = run(model, {"i0": np.asarray(arrays[0])})
    found = Network(model).run({"i0": np.asarray(arrays[0])})["y"].numpy()
    assert found.shape == expected.shape
    # Sums of at most 48 products of numbers of about 1, in another order.
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=4e-6)


def test_every_op_of_the_table_has_a_case() -> None:
    # Split, of several outputs, is in test_executor.py.
    assert {op for op, *_ in CASES} | {"Constant", "Split"} == set(OPS)


REFUSED: list[tuple[str, list[Any], int, dict[str, Any], str]] = [
    ("Slice", [X, ints(-1), ints(-100), ints(1), ints(-1)], 13, {}, "it goes backwards"),
    ("Pad", [X, ints(0, 0, 1, 1, 0, 0, 1, 1)], 13, {"mode": "reflect"}, "mode is not 'constant'"),
    (
        "Resize",
        [X, None, np.array([1, 1, 0.5, 0.5], np.float32)],
        13,
        {"mode": "linear"},
        "makes images smaller",
    ),
    (
        "Resize",
        [X, None, np.array([1, 1, 2, 2], np.float32)],
        13,
        {"coordinate_transformation_mode": "asymmetric"},
        "takes the nearest pixel by 'asymmetric'",
    ),
    ("Resize", [X, None, np.array([1, 1, 2, 2], np.float32)], 13, {"mode": "cubic"}, "'cubic'"),
    ("AveragePool", [X], 19, {"kernel_shape": [2, 2], "dilations": [2, 2]}, "it has dilations"),
    ("MaxPool", [X], 13, {"kernel_shape": [2, 2], "storage_order": 1}, "in column order"),
]


@pytest.mark.parametrize(("op", "arrays", "opset", "attributes", "why"), REFUSED)
def test_forms_that_are_not_computed_are_refused(
    one_op: Callable[..., onnx.ModelProto],
    op: str,
    arrays: list[Any],
    opset: int,
    attributes: dict[str, Any],
    why: str,
) -> None:
    model = one_op(op, arrays, opset=opset, **attributes)
    with pytest.raises(ModelError, match=f"node 'node' \\({op}\\) cannot be run in torch: .*{why}"):
        Network(model).run({"i0": arrays[0]})


def test_an_op_that_is_not_in_the_table_is_named(one_op: Callable[..., onnx.ModelProto]) -> None:
    with pytest.raises(ModelError, match=r"^node 'node' \(Erf\) .* no such op; [^\n]+$"):
        Network(one_op("Erf", [X]))
