"""What 8-bit convolutions take, and what quantisation adds to a layer's outputs, as noise."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_lowrank.estimation.work import Work
from onnx_lowrank.types import Array, Feeds

STEPS = 255.0  # of an activation's range, and of twice a weight's largest value


def rounding_noise(weight: Array, inputs: NDArray[Any]) -> Array:
    """Return the variance of what rounding adds to each output channel, shape ``(F,)``.

    Activations are rounded to 255 steps of their range, weights to those of each output channel:
    errors are uniform within a step and independent.

    Parameters
    ----------
    weight : ndarray, shape (F, C / group, *kernel)
        The layer's weight.
    inputs : ndarray
        What it reads.
    """
    rows = weight.reshape(len(weight), -1)
    step = (max(float(inputs.max()), 0.0) - min(float(inputs.min()), 0.0)) / STEPS
    of_inputs = step**2 / 12 * np.sum(rows**2, axis=1)
    steps = 2 * np.abs(rows).max(axis=1) / STEPS
    power = float(np.mean(np.square(inputs, dtype=np.float64)))
    return np.asarray(of_inputs + steps**2 / 12 * rows.shape[1] * power)


def quantised(work: Sequence[Work]) -> tuple[Work, ...]:
    """Return the same work of 8-bit integers: kinds of their own, and a quarter of the bytes."""
    return tuple(
        replace(each, kind=f"int8 {each.kind}", moved=each.moved / 4, weights=each.weights / 4)
        for each in work
    )


def chain_of_quantised(
    channels: int, kernel: int, size: int, count: int
) -> tuple[onnx.ModelProto, Feeds]:
    """Return a model of equal convolutions of integers in a row, and an input of it.

    Parameters
    ----------
    channels, kernel, size : int
        Of each: as many outputs as inputs, a square kernel, and a square image.
    count : int
        How many.
    """
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (channels, channels, kernel, kernel), dtype=np.int8)
    constants = {
        "weight": weight,
        "scale": np.float32(0.02),
        "scales": np.full(channels, 0.02 / np.sqrt(weight[0].size), np.float32),
        "zero": np.uint8(0),
        "zeros": np.zeros(channels, np.int8),
    }
    ends = [f"x{number}" for number in range(count + 1)]
    nodes = [
        helper.make_node(
            "QLinearConv",
            [x, "scale", "zero", "weight", "scales", "zeros", "scale", "zero"],
            [y],
            kernel_shape=[kernel] * 2,
            pads=[kernel // 2] * 4,
        )
        for x, y in itertools.pairwise(ends)
    ]
    shape = [1, channels, size, size]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info(ends[0], onnx.TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(ends[-1], onnx.TensorProto.UINT8, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model, {ends[0]: rng.integers(0, 256, shape, dtype=np.uint8)}
