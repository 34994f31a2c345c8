"""Models of one layer: a portable node, its standard ops, a dense Conv; for tests and benchmark."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from onnx_lowrank.rewriting.lowering.functions import DOMAIN, VERSION, functions

OPSET = 13
Arrays = dict[str, NDArray[Any]]


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


def _weight(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    fan = np.prod(shape[1:]) if len(shape) > 1 else 1.0
    return (rng.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)


def monochromatic(
    rng: np.random.Generator, *, channels: int, filters: int, colours: int, kernel: tuple[int, ...]
) -> tuple[str, list[str], Arrays, dict[str, Any]]:
    """Random weights of a MonochromaticConv: op, inputs, constants, structural attributes."""
    ones = (1,) * len(kernel)
    constants: Arrays = {
        "colours": _weight(rng, (colours, channels, *ones)),
        "filters": _weight(rng, (filters, 1, *kernel)),
        "bias": _weight(rng, (filters,)),
        "order": rng.permutation(filters).astype(np.int64),
    }
    return "MonochromaticConv", ["X", *constants], constants, {"colours": colours}


def blocks(
    rng: np.random.Generator,
    *,
    depthwise: bool,
    channels: int,
    filters: int,
    groups: tuple[int, int],
    ranks: tuple[int, int],
    kernel: tuple[int, ...],
) -> tuple[str, list[str], Arrays, dict[str, Any]]:
    """Random weights of a CPConv or a Tucker2Conv: op, inputs, constants, structural attributes."""
    ones = (1,) * len(kernel)
    (g, h), (k1, k2) = groups, ranks
    order = np.arange(g * h * k2).reshape(g, h, k2).transpose(1, 0, 2).ravel()
    constants: Arrays = {
        "input_order": rng.permutation(channels).astype(np.int64),
        "A": _weight(rng, (g * h * k1, channels // g, *ones)),
        "core": _weight(rng, (g * h * k2, 1 if depthwise else k1, *kernel)),
        "middle_order": order.astype(np.int64),
        "B": _weight(rng, (filters, g * k2, *ones)),
        "bias": _weight(rng, (filters,)),
        "output_order": rng.permutation(filters).astype(np.int64),
    }
    attributes = {"input_groups": g, "output_groups": h}
    attributes["channels" if depthwise else "blocks"] = g * h * k2 if depthwise else g * h
    return "CPConv" if depthwise else "Tucker2Conv", ["X", *constants], constants, attributes
