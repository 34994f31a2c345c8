"""What a Conv or a fully connected node computes, from its attributes and the shapes around it."""

from __future__ import annotations

import onnx

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.graph.attributes import attribute
from onnx_lowrank.graph.check import Shape
from onnx_lowrank.graph.ops import is_op


def conv_spec(
    node: onnx.NodeProto, weight: tuple[int, ...], x: Shape | None, y: Shape | None
) -> ConvSpec | None:
    """Return what a Conv computes; None where its weight has no kernel.

    Parameters
    ----------
    node : onnx.NodeProto
        A Conv.
    weight, x, y : tuple
        Shapes of its weight, input and output.
    """
    axes, group = len(weight) - 2, int(attribute(node, "group", 1))
    if axes < 1:
        return None
    return ConvSpec(
        in_channels=weight[1] * group,
        out_channels=weight[0],
        kernel=weight[2:],
        strides=tuple(attribute(node, "strides", (1,) * axes)),
        dilations=tuple(attribute(node, "dilations", (1,) * axes)),
        pads=tuple(attribute(node, "pads", (0,) * (2 * axes))),
        auto_pad=attribute(node, "auto_pad", "NOTSET") or "NOTSET",  # as onnxruntime takes ""
        group=group,
        bias=bias_name(node) is not None,
        input_size=sizes_of(x[2:]) if x and len(x) == axes + 2 else None,
        output_size=sizes_of(y[2:]) if y and len(y) == axes + 2 else None,
    )


def fc_spec(node: onnx.NodeProto, weight: tuple[int, ...], x: Shape | None) -> ConvSpec | None:
    """Return what a Gemm or MatMul computes; None where its weight is no matrix.

    Parameters
    ----------
    node : onnx.NodeProto
        A Gemm or MatMul with its weight on the right.
    weight, x : tuple
        Shapes of its weight and input.
    """
    if len(weight) != 2:
        return None
    is_gemm = is_op(node, "Gemm")
    transposed = is_gemm and attribute(node, "transB", 0)
    rows, columns = weight if transposed else weight[::-1]
    # The rows of one image: every axis of a MatMul but the first and the last; a Gemm has no more.
    size = () if is_gemm else None if x is None else sizes_of(x[1:-1])
    return ConvSpec(
        in_channels=columns,
        out_channels=rows,
        kernel=(),
        strides=(),
        dilations=(),
        pads=(),
        bias=is_gemm and bias_name(node) is not None,
        input_size=size,
        output_size=size,
    )


def sizes_of(dims: Shape) -> tuple[int, ...] | None:
    """Return dimensions as sizes; None where one of them is open."""
    sizes = tuple(size for size in dims if isinstance(size, int))
    return sizes if len(sizes) == len(dims) else None


def bias_name(node: onnx.NodeProto) -> str | None:
    """Return the name of a node's third input, or None."""
    return str(node.input[2]) if len(node.input) > 2 and node.input[2] else None
