"""Convolution, pooling and normalisation as torch computes them, by the rules of ONNX."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from onnx_lowrank.training.context import Context, Inputs

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def conv(inputs: Inputs, context: Context) -> torch.Tensor:
    """Conv over 1 to 3 axes, with any pads, strides, dilations and groups."""
    x, weight, bias = [*inputs, None][:3]
    axes = weight.dim() - 2
    if axes not in _CONV:
        raise context.refuse(f"it has {axes} spatial axes")
    strides, dilations = _steps(context, axes)
    pads = _pads(context, tuple(weight.shape[2:]), strides, dilations, tuple(x.shape[2:]))
    if pads[:axes] == pads[axes:]:
        padding = pads[:axes]
    else:
        x, padding = functional.pad(x, _torch_pads(pads)), [0] * axes
    group = context.get("group", 1)
    return _CONV[axes](x, weight, bias, strides, padding, dilations, group)


def max_pool(inputs: Inputs, context: Context) -> torch.Tensor:
    """MaxPool over 1 to 3 axes."""
    x: torch.Tensor = inputs[0]
    kernel, strides, dilations, pads, extra = _window(x, context)
    pads = [*pads[: len(kernel)], *(p + e for p, e in zip(pads[len(kernel) :], extra, strict=True))]
    if any(pads):
        x = functional.pad(x, _torch_pads(pads), value=-math.inf)
    pooled: torch.Tensor = _MAX[len(kernel)](x, kernel, strides, 0, dilations)
    return pooled


def average_pool(inputs: Inputs, context: Context) -> torch.Tensor:
    """AveragePool over 1 to 3 axes: the mean over what of a window lies inside."""
    x: torch.Tensor = inputs[0]
    kernel, strides, dilations, pads, extra = _window(x, context)
    axes = len(kernel)
    if dilations != [1] * axes:
        raise context.refuse("it has dilations")
    ends = [p + e for p, e in zip(pads[axes:], extra, strict=True)]
    padded = functional.pad(x, _torch_pads([*pads[:axes], *ends]))
    inside = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    if context.get("count_include_pad", 0):
        inside = functional.pad(inside, _torch_pads(pads), value=1.0)
        inside = functional.pad(inside, _torch_pads([0] * axes + extra))
    else:
        inside = functional.pad(inside, _torch_pads([*pads[:axes], *ends]))
    share = _AVERAGE[axes](inside, kernel, strides)
    pooled: torch.Tensor = _AVERAGE[axes](padded, kernel, strides)
    return pooled / share


def global_average_pool(inputs: Inputs, context: Context) -> torch.Tensor:
    """GlobalAveragePool: the mean over all spatial axes, which stay with size 1."""
    del context
    x: torch.Tensor = inputs[0]
    return x.mean(dim=tuple(range(2, x.dim())), keepdim=True)


def global_max_pool(inputs: Inputs, context: Context) -> torch.Tensor:
    """GlobalMaxPool: the maximum over all spatial axes, which stay with size 1."""
    del context
    x: torch.Tensor = inputs[0]
    return x.amax(dim=tuple(range(2, x.dim())), keepdim=True)


def batch_normalization(inputs: Inputs, context: Context) -> torch.Tensor:
    """BatchNormalization with its stored mean and variance, also while other weights train."""
    if context.get("training_mode", 0):
        raise context.refuse("it is in training mode")
    x, scale, bias, mean, variance = inputs
    epsilon = context.get("epsilon", 1e-5)
    return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


def lrn(inputs: Inputs, context: Context) -> torch.Tensor:
    """LRN across channels, its window of odd size, as onnxruntime demands."""
    x: torch.Tensor = inputs[0]
    size, alpha, beta = context.get("size"), context.get("alpha", 1e-4), context.get("beta", 0.75)
    index = torch.arange(x.shape[1], device=x.device)
    near = (index - index[:, None]).abs() <= size // 2
    # The sum over near channels is a 1x1 Conv: a training step takes half the time of torch's own.
    band = near.to(x.dtype).reshape(*near.shape, *(1,) * (x.dim() - 2)) * (alpha / size)
    sums = _CONV[x.dim() - 2](x * x, band)
    power: torch.Tensor = (context.get("bias", 1.0) + sums) ** -beta
    return x * power


def resize(inputs: Inputs, context: Context) -> torch.Tensor:
    """Resize to larger images, linear about the centres of pixels, or nearest by whole factors."""
    x, _, scales, sizes = [*inputs, None, None, None][:4]
    mode = context.get("mode", "nearest")
    coordinates = context.get("coordinate_transformation_mode", "half_pixel")
    if context.opset < 11 or context.get("axes") is not None or context.get("antialias", 0):
        raise context.refuse("its form is older than opset 11, names axes or smooths")
    if sizes is not None and sizes.numel():
        target = sizes.tolist()
    else:
        steps = [round(float(scale), 6) for scale in scales.tolist()]
        target = [math.floor(s * f) for s, f in zip(x.shape, steps, strict=True)]
    factors = [new / old for new, old in zip(target, x.shape, strict=True)]
    if factors[:2] != [1, 1] or min(factors) < 1:
        raise context.refuse("it makes images smaller or changes other axes")
    if mode == "nearest" and all(factor == int(factor) for factor in factors):
        # By whole factors and with pixels at their centres all roundings agree; asymmetric ones
        # agree when rounded down.
        if coordinates == "half_pixel" or context.get("nearest_mode") == "floor":
            return functional.interpolate(x, target[2:], mode="nearest")
        raise context.refuse(f"it takes the nearest pixel by '{coordinates}'")
    if mode == "linear" and x.dim() == 4 and coordinates in ("half_pixel", "pytorch_half_pixel"):
        return functional.interpolate(x, target[2:], mode="bilinear", align_corners=False)
    raise context.refuse(f"its mode is '{mode}' by '{coordinates}'")


def _steps(context: Context, axes: int) -> tuple[list[int], list[int]]:
    strides = [int(v) for v in context.get("strides", [1] * axes)]
    return strides, [int(v) for v in context.get("dilations", [1] * axes)]


def _window(
    x: torch.Tensor, context: Context
) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Return kernel, strides, dilations, pads, and what ceil_mode adds at the end of each axis."""
    kernel = [int(v) for v in context.get("kernel_shape")]
    axes = len(kernel)
    if axes not in _MAX or context.get("storage_order", 0):
        raise context.refuse(f"it pools over {axes} axes, or in column order")
    strides, dilations = _steps(context, axes)
    sizes = tuple(x.shape[2:])
    pads = _pads(context, tuple(kernel), strides, dilations, sizes)
    extra = [0] * axes
    if context.get("ceil_mode", 0):
        for axis in range(axes):
            reach = dilations[axis] * (kernel[axis] - 1) + 1
            room = sizes[axis] + pads[axis] + pads[axes + axis] - reach
            steps = -(-room // strides[axis])
            # A window that would begin in the pad at the end is left out.
            if steps * strides[axis] >= sizes[axis] + pads[axis]:
                steps -= 1
            extra[axis] = max(0, steps * strides[axis] - room)
    return kernel, strides, dilations, pads, extra


def _pads(
    context: Context,
    kernel: tuple[int, ...],
    strides: list[int],
    dilations: list[int],
    sizes: tuple[int, ...],
) -> list[int]:
    """Return the pads, begin of every axis, then end of every axis, whatever names them."""
    auto = context.get("auto_pad", "NOTSET") or "NOTSET"
    axes = len(kernel)
    if auto == "NOTSET":
        return [int(v) for v in context.get("pads", [0] * (2 * axes))]
    if auto == "VALID":
        return [0] * (2 * axes)
    totals = [
        max(0, (-(-size // stride) - 1) * stride + dilation * (k - 1) + 1 - size)
        for size, stride, dilation, k in zip(sizes, strides, dilations, kernel, strict=True)
    ]
    less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return less + more if auto == "SAME_UPPER" else more + less


def _torch_pads(pads: list[int]) -> list[int]:
    """Return ONNX pads in torch's order: the last axis first, its begin and end together."""
    axes = len(pads) // 2
    return [value for axis in reversed(range(axes)) for value in (pads[axis], pads[axes + axis])]
