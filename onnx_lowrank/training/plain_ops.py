"""Products, activations, and ops on shapes and indices, by the rules of ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.training.context import Context, Inputs


def gemm(inputs: Inputs, context: Context) -> torch.Tensor:
    """Gemm: ``alpha A B + beta C``, either factor transposed."""
    a, b, c = [*inputs, None][:3]
    a = a.T if context.get("transA", 0) else a
    b = b.T if context.get("transB", 0) else b
    product: torch.Tensor = context.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + context.get("beta", 1.0) * c


def total(inputs: Inputs, context: Context) -> torch.Tensor:
    """Sum of any number of tensors."""
    del context
    result: torch.Tensor = inputs[0]
    for each in inputs[1:]:
        result = result + each
    return result


def softmax(inputs: Inputs, context: Context) -> torch.Tensor:
    """Softmax; below opset 13 over all axes from the given one on."""
    return _over_classes(torch.softmax, inputs[0], context)


def log_softmax(inputs: Inputs, context: Context) -> torch.Tensor:
    """Logarithm of `softmax`."""
    return _over_classes(torch.log_softmax, inputs[0], context)


def _over_classes(
    function: Callable[..., torch.Tensor], x: torch.Tensor, context: Context
) -> torch.Tensor:
    if context.opset >= 13:
        return function(x, dim=context.get("axis", -1))
    axis = context.get("axis", 1) % x.dim()
    return function(x.flatten(axis), dim=axis).reshape(x.shape)


def clip(inputs: Inputs, context: Context) -> torch.Tensor:
    """Clip, its bounds given as inputs or, below opset 11, as attributes."""
    x, low, high = [*inputs, None, None][:3]
    low = context.get("min") if low is None else low
    high = context.get("max") if high is None else high
    return x if low is None and high is None else torch.clamp(x, low, high)


def prelu(inputs: Inputs, context: Context) -> torch.Tensor:
    """PRelu, its slope broadcast from behind."""
    del context
    x, slope = inputs
    return torch.where(x < 0, x * slope, x)


def reshape(inputs: Inputs, context: Context) -> torch.Tensor:
    """Reshape: 0 keeps a size, -1 takes the rest."""
    x: torch.Tensor = inputs[0]
    target: torch.Tensor = inputs[1]
    sizes = [int(v) for v in target.tolist()]
    if not context.get("allowzero", 0):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def flatten(inputs: Inputs, context: Context) -> torch.Tensor:
    """Flatten to a matrix at an axis."""
    x: torch.Tensor = inputs[0]
    axis = context.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def transpose(inputs: Inputs, context: Context) -> torch.Tensor:
    """Transpose; all axes reversed by default."""
    x: torch.Tensor = inputs[0]
    return x.permute(context.get("perm", list(range(x.dim()))[::-1]))


def squeeze(inputs: Inputs, context: Context) -> torch.Tensor:
    """Squeeze the axes named, or all of size 1."""
    x: torch.Tensor = inputs[0]
    axes = _axes(inputs, context)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def unsqueeze(inputs: Inputs, context: Context) -> torch.Tensor:
    """Unsqueeze: the axes are those of the result."""
    x: torch.Tensor = inputs[0]
    axes = _axes(inputs, context) or []
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _axes(inputs: Inputs, context: Context) -> list[int] | None:
    """Return the axes, an input since opset 13 and an attribute before."""
    if len(inputs) > 1 and inputs[1] is not None:
        return [int(v) for v in inputs[1].tolist()]
    axes = context.get("axes")
    return None if axes is None else [int(v) for v in axes]


def reduce_mean(inputs: Inputs, context: Context) -> torch.Tensor:
    """ReduceMean over the axes named, or all."""
    x: torch.Tensor = inputs[0]
    axes = _axes(inputs, context)
    if axes is None and context.get("noop_with_empty_axes", 0):
        return x
    chosen = tuple(range(x.dim())) if axes is None else tuple(axes)
    return x.mean(dim=chosen, keepdim=bool(context.get("keepdims", 1)))


def gather(inputs: Inputs, context: Context) -> torch.Tensor:
    """Gather by indices of any rank, negative ones from the end."""
    x: torch.Tensor = inputs[0]
    index: torch.Tensor = inputs[1]
    axis = context.get("axis", 0) % x.dim()
    flat = index.reshape(-1) % x.shape[axis]
    found = x.index_select(axis, flat.to(x.device))
    return found.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def slices(inputs: Inputs, context: Context) -> torch.Tensor:
    """Slice with steps of 1 or more."""
    x: torch.Tensor = inputs[0]
    if context.opset >= 10:
        given: list[Any] = [None if value is None else value.tolist() for value in inputs[1:]]
    else:
        given = [context.get(name) for name in ("starts", "ends", "axes")]
    axes, steps = [*given[2:], None, None][:2]
    parts = [slice(None)] * x.dim()
    for index, (start, end) in enumerate(zip(given[0], given[1], strict=True)):
        step = steps[index] if steps else 1
        if step < 1:
            raise context.refuse("it goes backwards")
        parts[axes[index] % x.dim() if axes else index] = slice(start, end, step)
    return x[tuple(parts)]


def of_one_output(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return a Split as a node for each of its outputs, and any other node as it is."""
    if not is_op(node, "Split"):
        return [node]
    nodes = []
    for index, output in enumerate(node.output):
        part = onnx.NodeProto()
        part.CopyFrom(node)
        part.output[:] = [output]
        part.attribute.append(helper.make_attribute("part", [index, len(node.output)]))
        nodes.append(part)
    return nodes


def split(inputs: Inputs, context: Context) -> torch.Tensor:
    """Return the part of a Split that `of_one_output` has made the node for."""
    x: torch.Tensor = inputs[0]
    axis = context.get("axis", 0)
    index, count = context.get("part")
    sizes = inputs[1].tolist() if len(inputs) > 1 and inputs[1] is not None else None
    sizes = context.get("split") if sizes is None else sizes
    if sizes is None:  # equal parts, of which the last may be smaller
        size = -(-x.shape[axis] // count)
        return x.narrow(axis, index * size, min(size, x.shape[axis] - index * size))
    return x.narrow(axis, sum(sizes[:index]), sizes[index])


def pad(inputs: Inputs, context: Context) -> torch.Tensor:
    """Pad every axis with a constant."""
    x: torch.Tensor = inputs[0]
    if context.get("mode", "constant") != "constant" or (len(inputs) > 3 and inputs[3] is not None):
        raise context.refuse("its mode is not 'constant', or it names axes")
    if context.opset >= 11:
        pads = inputs[1].tolist()
        value = 0.0 if len(inputs) < 3 or inputs[2] is None else inputs[2].item()
    else:
        pads, value = context.get("pads"), context.get("value", 0.0)
    rank = x.dim()
    order = [v for axis in reversed(range(rank)) for v in (pads[axis], pads[rank + axis])]
    return functional.pad(x, order, value=value)


def cast(inputs: Inputs, context: Context) -> torch.Tensor:
    """Cast; every floating-point type is the one that is computed in."""
    x: torch.Tensor = inputs[0]
    kind = np.dtype(helper.tensor_dtype_to_np_dtype(context.get("to")))
    if context.get("to") == TensorProto.BFLOAT16 or kind.kind == "f":
        return x.to(context.dtype)
    if kind.kind not in "biu":
        raise context.refuse(f"its type is {kind}")
    return x.to(torch.from_numpy(np.zeros(1, kind)).dtype)


def constant(inputs: Inputs, context: Context) -> torch.Tensor:
    """Constant, of numbers in any of its forms."""
    del inputs
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        value = context.get(name)
        if value is not None:
            is_tensor = isinstance(value, TensorProto)
            return as_tensor(numpy_helper.to_array(value) if is_tensor else value, context.dtype)
    raise context.refuse("its value is not a tensor of numbers")


def as_tensor(value: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return a copy of an array or of numbers, in `dtype` if they are floats."""
    tensor = torch.from_numpy(np.array(value))
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def divide(inputs: Inputs, context: Context) -> torch.Tensor:
    """Div; the quotient of integers is rounded towards zero."""
    del context
    a: torch.Tensor = inputs[0]
    b: torch.Tensor = inputs[1]
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


def shape(inputs: Inputs, context: Context) -> torch.Tensor:
    """Shape, or a part of it."""
    sizes = list(inputs[0].shape)[context.get("start", 0) : context.get("end")]
    return torch.tensor(sizes, dtype=torch.int64)
