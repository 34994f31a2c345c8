"""What a CUDA kernel is held to, wherever it runs: on a GPU, or emulated on the host."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from cases import activation, model, window
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator
from ops import convolutions

Array = NDArray[Any]
Run = Callable[[onnx.ModelProto, Array], Array]
"""Runs a model that takes X and gives Y, both float32."""

KERNELS = [(1, 1), (3, 3), (5, 4), (7, 7), (3,), (3, 2, 3)]
WINDOWS = list(itertools.product((1, 2, 3), (0, 2), (1, 2)))  # stride, pad, dilation
LRNS = [(1, 0.75), (3, 0.5), (5, 0.75), (5, 1.0), (7, 0.3)]  # size, beta
# dtype, unit roundoff of what Y is rounded to, half the spacing of the subnormal numbers
TYPES = [
    pytest.param(np.float32, 0.0, 0.0, id="float32"),
    pytest.param(np.float16, 2.0**-11, 2.0**-25, id="float16"),
    pytest.param(ml_dtypes.bfloat16, 2.0**-8, 2.0**-134, id="bfloat16"),
]
# As in test_kernels.py: three sums of at most a few hundred float32 terms, of another order.
TOLERANCE = 6e-6
OPSET = 15  # the first whose bodies have activations of the node's own type


def check_layers(
    run: Run,
    dtype: Any,
    unit: float,
    tiny: float,
    kernel: tuple[int, ...],
    settings: tuple[int, int, int],
) -> None:
    """Compare every layer, with and without activation, with its body in float64 on the CPU."""
    rng = np.random.default_rng(3)
    size = {1: (23,), 2: (14, 19), 3: (5, 6, 9)}[len(kernel)]
    # Values that the type holds exactly: sums in float32 remain, and one rounding of Y.
    x = rng.standard_normal((2, 6, *size)).astype(dtype).astype(np.float32)
    for op, inputs, constants, structure in convolutions(rng, kernel):
        rounded = {
            name: value.astype(dtype).astype(np.float32) if value.dtype == np.float32 else value
            for name, value in constants.items()
        }
        attributes = {**structure, **window(kernel, *settings)}
        plain = {**attributes, **activation()}
        exact = in_float64(model(op, inputs, rounded, plain, x.shape, dtype=np.float64), x)
        # The activation is a contraction: an error before it does not grow.
        bound = TOLERANCE * np.abs(exact).max()
        for act in (activation(), activation(-0.5, 1.0, 0.1)):
            proto = model(
                op, inputs, rounded, {**attributes, **act}, x.shape, dtype=dtype, opset=OPSET
            )
            expected = np.clip(exact, act["min"], act["max"])
            expected = np.where(expected < 0, act["alpha"] * expected, expected)
            check(run(in_float32(proto), x), expected, bound, unit, tiny)


def check_lrn(run: Run, dtype: Any, unit: float, tiny: float, size: int, beta: float) -> None:
    """Compare an LRN with ONNX's formula in float64; onnx's reference sums over the wrong axis."""
    x = np.random.default_rng(6).standard_normal((2, 13, 9, 11)).astype(dtype).astype(np.float32)
    attributes = {"size": size, "alpha": 0.3, "beta": beta, "bias": 1.5}
    alpha, power, wide = *np.array([0.3, beta], np.float32).astype(float), x.astype(np.float64)
    before, after = (size - 1) // 2, size // 2
    padded = np.pad(wide**2, ((0, 0), (before, after), (0, 0), (0, 0)))
    squares = sum(padded[:, k : k + x.shape[1]] for k in range(size))
    exact = wide / (1.5 + alpha / size * squares) ** power
    # The base, at most 7 squares and 3 more operations, is off by 10 roundings, of which the power
    # passes on the share beta; powf itself is off by up to 8 in CUDA's tables, the quotient by 1.
    bound = (10 * beta + 9) * 2.0**-24 * np.abs(exact)
    proto = model("LRN", ["X"], {}, attributes, x.shape, dtype=dtype, opset=OPSET)
    check(run(in_float32(proto), x), exact, bound, unit, tiny)


def check(ours: Array, expected: Array, bound: Any, unit: float, tiny: float) -> None:
    """Hold float32 errors to `bound`, and those of rounding to the type to half a unit."""
    assert ours.shape == expected.shape
    excess = np.abs(ours - expected) - (unit * np.abs(expected) + tiny + (1 + unit) * bound)
    assert excess.max() <= 0


def in_float64(proto: onnx.ModelProto, x: Array) -> Array:
    """Run a float64 model by onnx's own reference, on the CPU."""
    return np.asarray(ReferenceEvaluator(proto).run(None, {"X": x.astype(np.float64)})[0])


def in_float32(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model of float32 inputs and outputs around a node: NumPy has no bfloat16."""
    wrapped = onnx.ModelProto()
    wrapped.CopyFrom(proto)
    graph = wrapped.graph
    element = graph.input[0].type.tensor_type.elem_type
    node = graph.node[0]
    node.input[0], node.output[0] = "X_typed", "Y_typed"
    graph.node.insert(0, helper.make_node("Cast", ["X"], ["X_typed"], to=element))
    graph.node.append(helper.make_node("Cast", ["Y_typed"], ["Y"], to=onnx.TensorProto.FLOAT))
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return wrapped
