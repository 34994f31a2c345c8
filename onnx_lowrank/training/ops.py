"""The ops that are computed in torch: one visible table."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from onnx_lowrank.training import plain_ops, spatial_ops
from onnx_lowrank.training.context import Context, Inputs, Op


def _plain(function: Callable[..., torch.Tensor]) -> Op:
    """Return the op that a function of the inputs alone computes."""
    return lambda inputs, context: function(*inputs)


def _leaky_relu(inputs: Inputs, context: Context) -> torch.Tensor:
    return functional.leaky_relu(inputs[0], context.get("alpha", 0.01))


def _concat(inputs: Inputs, context: Context) -> torch.Tensor:
    return torch.cat(inputs, dim=context.get("axis"))


OPS: dict[str, Op] = {
    "Add": _plain(torch.add),
    "AveragePool": spatial_ops.average_pool,
    "BatchNormalization": spatial_ops.batch_normalization,
    "Cast": plain_ops.cast,
    "Clip": plain_ops.clip,
    "Concat": _concat,
    "Constant": plain_ops.constant,
    "Conv": spatial_ops.conv,
    "Div": plain_ops.divide,
    # Nothing is dropped: losses are those of the network as it is used.
    "Dropout": lambda inputs, context: inputs[0],
    "Flatten": plain_ops.flatten,
    "Gather": plain_ops.gather,
    "Gemm": plain_ops.gemm,
    "GlobalAveragePool": spatial_ops.global_average_pool,
    "GlobalMaxPool": spatial_ops.global_max_pool,
    "Identity": _plain(torch.clone),
    "LRN": spatial_ops.lrn,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": plain_ops.log_softmax,
    "MatMul": _plain(torch.matmul),
    "MaxPool": spatial_ops.max_pool,
    "Mul": _plain(torch.mul),
    "PRelu": plain_ops.prelu,
    "Pad": plain_ops.pad,
    "ReduceMean": plain_ops.reduce_mean,
    "Relu": _plain(torch.relu),
    "Reshape": plain_ops.reshape,
    "Resize": spatial_ops.resize,
    "Shape": plain_ops.shape,
    "Sigmoid": _plain(torch.sigmoid),
    "Slice": plain_ops.slices,
    "Softmax": plain_ops.softmax,
    "Split": plain_ops.split,
    "Squeeze": plain_ops.squeeze,
    "Sub": _plain(torch.sub),
    "Sum": plain_ops.total,
    "Tanh": _plain(torch.tanh),
    "Transpose": plain_ops.transpose,
    "Unsqueeze": plain_ops.unsqueeze,
}
