"""Factors to portable nodes: one custom op with a body of standard ops, for kernels to speed up."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.graph.subgraph_builder import SubgraphBuilder
from onnx_lowrank.rewriting.lowering.functions import DOMAIN
from onnx_lowrank.rewriting.lowering.permutation import inverse, transposed_blocks
from onnx_lowrank.schemes.factors import (
    BlockCPFactors,
    BlockTucker2Factors,
    MonochromaticFactors,
)
from onnx_lowrank.types import Array

NO_ACTIVATION = {"min": -math.inf, "max": math.inf, "alpha": 1.0}
"""Attributes of a node that clips nothing and has no slope."""


def refusal(structure: type[object], conv: ConvSpec, dtype: np.dtype[Any]) -> str | None:
    """Return in a clause why no node serves a structure in the place of a layer, or None.

    Structures without an op of their own are two Convs or MatMuls one behind the other already.
    """
    if lower.dispatch(structure) is lower.dispatch(object):
        return f"there is no portable node for {structure.__name__}"
    if dtype != np.float32:
        return f"the kernels compute in float32, the layer in {dtype}"
    if len(conv.kernel) > 2:
        return f"no fast kernel for {len(conv.kernel)} spatial axes"
    if conv.auto_pad != "NOTSET":
        return f"a portable node has no {conv.auto_pad} for open input sizes"
    return None


@singledispatch
def lower(factors: object, conv: ConvSpec, bias: Array | None, builder: SubgraphBuilder) -> None:
    """Build the node that computes `factors` into `builder`.

    Parameters
    ----------
    factors : Factors
        Values of a structure; their class decides the op.
    conv : ConvSpec
        The layer they replace.
    bias : ndarray, shape (F,), or None
        The layer's bias.
    builder : SubgraphBuilder
        Receives the node, from its input to its output.

    Raises
    ------
    TypeError
        If no op is registered for the class of `factors`.
    """
    raise TypeError(f"no portable node for {type(factors).__name__}")


@lower.register
def _(
    factors: MonochromaticFactors, conv: ConvSpec, bias: Array | None, builder: SubgraphBuilder
) -> None:
    by_colour = np.argsort(factors.colour_of, kind="stable").astype(np.int64)
    inputs: dict[str, NDArray[Any]] = {
        "colours": _pointwise(factors.colours, conv),
        "filters": factors.filters[by_colour][:, None],
        "bias": _bias(bias, conv)[by_colour],
        "order": inverse(by_colour),
    }
    structure = {"colours": factors.colours.shape[0]}
    _node(builder, "MonochromaticConv", "monochromatic", inputs, structure, conv)


@lower.register
def _(
    factors: BlockTucker2Factors, conv: ConvSpec, bias: Array | None, builder: SubgraphBuilder
) -> None:
    n_in, n_out = factors.inputs.shape[:2]
    structure = {"input_groups": n_in, "blocks": n_in * n_out, "output_groups": n_out}
    inputs = _blocks(factors, "core", factors.cores, conv, bias)
    _node(builder, "Tucker2Conv", "tucker2", inputs, structure, conv)


@lower.register
def _(
    factors: BlockCPFactors, conv: ConvSpec, bias: Array | None, builder: SubgraphBuilder
) -> None:
    n_in, n_out, rank = factors.inputs.shape[:3]
    structure = {"input_groups": n_in, "channels": n_in * n_out * rank, "output_groups": n_out}
    inputs = _blocks(factors, "depthwise", factors.kernels[:, :, :, None], conv, bias)
    _node(builder, "CPConv", "cp", inputs, structure, conv)


def _blocks(
    factors: BlockTucker2Factors | BlockCPFactors,
    name: str,
    cores: Array,
    conv: ConvSpec,
    bias: Array | None,
) -> dict[str, NDArray[Any]]:
    """Return a node's inputs; `cores` is ``(G, H, K2, inputs per channel, *kernel)``."""
    n_in, n_out, size, last_rank = factors.outputs.shape
    first_rank = factors.inputs.shape[2]
    by_cluster = factors.output_clusters.ravel()
    outputs = factors.outputs.transpose(1, 2, 0, 3).reshape(n_out * size, n_in * last_rank)
    return {
        "input_order": factors.input_clusters.ravel(),
        "A": _pointwise(factors.inputs.reshape(n_in * n_out * first_rank, -1), conv),
        name: cores.reshape(-1, *cores.shape[3:]),
        "middle_order": transposed_blocks(n_in, n_out, last_rank),
        "B": _pointwise(outputs, conv),
        "bias": _bias(bias, conv)[by_cluster],
        "output_order": inverse(by_cluster),
    }


def _node(
    builder: SubgraphBuilder,
    op: str,
    name: str,
    inputs: dict[str, NDArray[Any]],
    structure: dict[str, int],
    conv: ConvSpec,
) -> None:
    constants = [builder.constant(value, f"{name}.{key}") for key, value in inputs.items()]
    window = {
        "strides": list(conv.strides),
        "dilations": list(conv.dilations),
        "pads": list(conv.pads),
    }
    attributes: dict[str, Any] = {**structure, **window, **NO_ACTIVATION}
    output = builder.node(op, [builder.input, *constants], attributes, domain=DOMAIN, name=name)
    builder.output(output)


def _bias(bias: Array | None, conv: ConvSpec) -> Array:
    return np.zeros(conv.out_channels) if bias is None else bias


def _pointwise(matrix: Array, conv: ConvSpec) -> Array:
    """Return a matrix as the weight of a 1x1 Conv of the layer's dimension."""
    return matrix.reshape(*matrix.shape, *(1,) * len(conv.kernel))
