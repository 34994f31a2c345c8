"""Models of one layer: a portable node, its standard ops, a dense Conv; for tests and benchmark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from onnx_lowrank.rewriting.lowering.functions import DOMAIN, VERSION, functions

OPSET = 13
Arrays = dict[str, NDArray[Any]]
Parts = tuple[str, list[str], Arrays, dict[str, Any]]
"""A node's op, inputs, constants, and the attributes that follow from their shapes."""
Pick = Callable[[int, int], int]
"""Draws a whole number between two, both included."""
Point = dict[str, Any]
"""A layer to time: its op, channels C, size n, a label, and what its module knows; of a Conv also
filters F, kernel k, stride s, pad p."""


def model(
    op: str,
    inputs: list[str],
    constants: Arrays,
    attributes: dict[str, Any],
    x_shape: tuple[int, ...],
    *,
    domain: str = DOMAIN,
    function: bool = True,
    dtype: Any = np.float32,
    opset: int = OPSET,
) -> ModelProto:
    """One node of `op` on X, with or without its function body; X and weights are of `dtype`."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    constants = {
        key: value.astype(dtype) if value.dtype == np.float32 else value
        for key, value in constants.items()
    }
    graph = helper.make_graph(
        [helper.make_node(op, inputs, ["Y"], domain=domain, name="layer", **attributes)],
        "layer",
        [helper.make_tensor_value_info("X", element, ["N", *x_shape[1:]])],
        [helper.make_tensor_value_info("Y", element, [None] * len(x_shape))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    bodies = []
    if domain:
        opsets.append(helper.make_opsetid(domain, VERSION))
        bodies = [functions(opset)[op]] if function else []
    return helper.make_model(graph, opset_imports=opsets, functions=bodies, ir_version=8)


def window(kernel: tuple[int, ...], stride: int, pad: int, dilation: int = 1) -> dict[str, Any]:
    """Return the attributes of a window, equal along all axes."""
    n = len(kernel)
    return {"strides": [stride] * n, "dilations": [dilation] * n, "pads": [pad] * 2 * n}


def activation(low: float = -np.inf, high: float = np.inf, alpha: float = 1.0) -> dict[str, Any]:
    """Return the attributes of the fused activation."""
    return {"min": float(low), "max": float(high), "alpha": float(alpha)}


def weight(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a random weight that keeps the size of values."""
    fan = np.prod(shape[1:]) if len(shape) > 1 else 1.0
    return (rng.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)


def conv(c: int, f: int, k: int, s: int, n: int, p: int) -> Point:
    """Return the sizes of a Conv to time."""
    return {"C": c, "F": f, "k": k, "s": s, "n": n, "p": p}


def outputs(point: Point) -> int:
    """Return the positions of Y."""
    return int((point["n"] + 2 * point["p"] - point["k"]) // point["s"] + 1) ** 2
