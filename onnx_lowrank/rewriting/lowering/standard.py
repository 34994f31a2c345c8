"""Factors to standard ONNX ops: chains of Conv, with Gather where clusters need another order.

Every lowering keeps the layer's output as it was: same order, same shape, bias included.
"""

from __future__ import annotations

from functools import singledispatch

import numpy as np

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.graph.subgraph_builder import SubgraphBuilder
from onnx_lowrank.rewriting.lowering.permutation import (
    Permutation,
    inverse,
    is_identity,
    transposed_blocks,
)
from onnx_lowrank.rewriting.lowering.pointwise import PointwiseForms, choose_forms
from onnx_lowrank.schemes.dense import DenseFactors
from onnx_lowrank.schemes.factors import (
    BlockCPFactors,
    BlockTucker2Factors,
    MonochromaticFactors,
    TwoStageFactors,
)
from onnx_lowrank.schemes.spatial import SpatialFactors
from onnx_lowrank.types import Array


@singledispatch
def lower(
    factors: object,
    conv: ConvSpec,
    bias: Array | None,
    builder: SubgraphBuilder,
    *,
    forms: PointwiseForms | None = None,
) -> None:
    """Build the nodes that compute `factors` into `builder`.

    Parameters
    ----------
    factors : Factors
        Values of a structure; their class decides the nodes.
    conv : ConvSpec
        The layer they replace.
    bias : ndarray, shape (F,), or None
        The layer's bias.
    builder : SubgraphBuilder
        Receives the nodes, from its input to its output.
    forms : PointwiseForms, optional
        Form of the 1x1 stages of block schemes; the cheapest by a rough estimate if not given.

    Raises
    ------
    TypeError
        If no lowering is registered for the class of `factors`.
    """
    raise TypeError(f"no standard lowering for {type(factors).__name__}")


def refusal(structure: type[object]) -> str | None:
    """Return in a clause why there is no lowering for factors of a class, or None."""
    if lower.dispatch(structure) is lower.dispatch(object):
        return f"{structure.__name__} have no chain of standard ops"
    return None


@lower.register
def _(
    factors: DenseFactors,
    conv: ConvSpec,
    bias: Array | None,
    builder: SubgraphBuilder,
    *,
    forms: PointwiseForms | None = None,
) -> None:
    del forms  # there is one stage
    x = builder.input
    if conv.kernel:
        builder.output(
            _spatial(
                builder, x, conv, weight=factors.weight, bias=bias, group=conv.group, name="dense"
            )
        )
        return
    x = _matmul(builder, x, factors.weight, "dense")
    builder.output(_biased(builder, x, bias, "dense"))


@lower.register
def _(
    factors: MonochromaticFactors,
    conv: ConvSpec,
    bias: Array | None,
    builder: SubgraphBuilder,
    *,
    forms: PointwiseForms | None = None,
) -> None:
    del forms  # the colour transform has one form
    by_colour = np.argsort(factors.colour_of, kind="stable").astype(np.int64)
    x = builder.conv(builder.input, _pointwise(factors.colours, conv), name="colours")
    x = _spatial(
        builder,
        x,
        conv,
        weight=factors.filters[by_colour][:, None],
        bias=None if bias is None else bias[by_colour],
        group=factors.colours.shape[0],
        name="filters",
    )
    builder.output(_reorder(builder, x, inverse(by_colour), "order"))


@lower.register
def _(
    factors: BlockTucker2Factors,
    conv: ConvSpec,
    bias: Array | None,
    builder: SubgraphBuilder,
    *,
    forms: PointwiseForms | None = None,
) -> None:
    _lower_blocks(factors, factors.cores, conv, bias, builder, forms)


@lower.register
def _(
    factors: BlockCPFactors,
    conv: ConvSpec,
    bias: Array | None,
    builder: SubgraphBuilder,
    *,
    forms: PointwiseForms | None = None,
) -> None:
    _lower_blocks(factors, factors.kernels[:, :, :, None], conv, bias, builder, forms)


@lower.register
def _(
    factors: TwoStageFactors,
    conv: ConvSpec,
    bias: Array | None,
    builder: SubgraphBuilder,
    *,
    forms: PointwiseForms | None = None,
) -> None:
    del forms  # both stages take the channels as they come
    group, rank = factors.kernels.shape[:2]
    kernels = factors.kernels.reshape(group * rank, *factors.kernels.shape[2:])
    outputs = factors.outputs.reshape(-1, rank)
    if not conv.kernel:
        x = _matmul(builder, builder.input, kernels, "kernels")
        x = _matmul(builder, x, outputs, "outputs")
        builder.output(_biased(builder, x, bias, "outputs"))
        return
    x = _spatial(
        builder, builder.input, conv, weight=kernels, bias=None, group=group, name="kernels"
    )
    x = builder.conv(x, _pointwise(outputs, conv), bias=bias, group=group, name="outputs")
    builder.output(x)


@lower.register
def _(
    factors: SpatialFactors,
    conv: ConvSpec,
    bias: Array | None,
    builder: SubgraphBuilder,
    *,
    forms: PointwiseForms | None = None,
) -> None:
    del forms  # there is no 1x1 stage
    x = _one_axis(builder, builder.input, conv, factors.first, None, "first")
    builder.output(_one_axis(builder, x, conv, factors.second, bias, "second"))


def _one_axis(
    builder: SubgraphBuilder, x: str, conv: ConvSpec, weight: Array, bias: Array | None, name: str
) -> str:
    """Emit a Conv that has the layer's attributes along the axis on which its kernel extends."""
    window = conv.window.along([size > 1 for size in weight.shape[2:]])
    return builder.conv(x, weight, bias=bias, window=window, name=name)


def _matmul(builder: SubgraphBuilder, x: str, weight: Array, name: str) -> str:
    constant = builder.constant(weight.T, f"{name}.weight")
    return builder.node("MatMul", [x, constant], name=name)


def _biased(builder: SubgraphBuilder, x: str, bias: Array | None, name: str) -> str:
    if bias is None:
        return x
    return builder.node("Add", [x, builder.constant(bias, f"{name}.bias")], name="bias")


def _lower_blocks(
    factors: BlockTucker2Factors | BlockCPFactors,
    cores: Array,
    conv: ConvSpec,
    bias: Array | None,
    builder: SubgraphBuilder,
    forms: PointwiseForms | None,
) -> None:
    """1x1 per input cluster, spatial Conv per block, 1x1 per output cluster.

    `cores` is ``(G, H, K2, inputs per channel, *kernel)``: K1 inputs for Tucker-2, one for CP.
    """
    n_in, n_out, first_rank, _ = factors.inputs.shape
    last_rank = factors.outputs.shape[-1]
    forms = forms or choose_forms(
        conv,
        input_blocks=n_in,
        output_blocks=n_out,
        first_rank=first_rank,
        last_rank=last_rank,
    )
    x = _first_stage(builder, factors, conv, grouped=forms.first == "grouped")
    x = _spatial(
        builder,
        x,
        conv,
        # In (g, h) order behind a grouped first stage; a dense one gives the last stage's order.
        weight=(cores if forms.first == "grouped" else cores.swapaxes(0, 1)).reshape(
            -1, *cores.shape[3:]
        ),
        bias=None,
        group=n_in * n_out * first_rank // cores.shape[3],
        name="core",
    )
    if forms.needs_middle_gather:
        x = _reorder(builder, x, transposed_blocks(n_in, n_out, last_rank), "blocks")
    in_out_order = forms.first == "grouped" and forms.last == "dense"
    _last_stage(
        builder, x, factors, conv, bias, grouped=forms.last == "grouped", in_out_order=in_out_order
    )


def _first_stage(
    builder: SubgraphBuilder,
    factors: BlockTucker2Factors | BlockCPFactors,
    conv: ConvSpec,
    *,
    grouped: bool,
) -> str:
    """Emit the stage; grouped, its channels come in (g, h) order, dense, in (h, g) order."""
    n_in, n_out, rank, _ = factors.inputs.shape
    if grouped:
        x = _reorder(builder, builder.input, factors.input_clusters.ravel(), "cluster_inputs")
        weight = factors.inputs.reshape(n_in * n_out * rank, -1)
        return builder.conv(x, _pointwise(weight, conv), group=n_in, name="inputs")
    dense = np.zeros((n_out, n_in, rank, conv.in_channels))
    for g, members in enumerate(factors.input_clusters):
        dense[:, g, :, members] = factors.inputs[g].transpose(2, 0, 1)
    return builder.conv(
        builder.input, _pointwise(dense.reshape(-1, conv.in_channels), conv), name="inputs"
    )


def _last_stage(
    builder: SubgraphBuilder,
    x: str,
    factors: BlockTucker2Factors | BlockCPFactors,
    conv: ConvSpec,
    bias: Array | None,
    *,
    grouped: bool,
    in_out_order: bool,
) -> None:
    """Sum over the input clusters; `in_out_order` says that the channels come in (g, h) order."""
    n_in, n_out, size, rank = factors.outputs.shape
    if grouped:
        by_cluster = factors.output_clusters.ravel()
        weight = factors.outputs.transpose(1, 2, 0, 3).reshape(n_out * size, n_in * rank)
        x = builder.conv(
            x,
            _pointwise(weight, conv),
            bias=None if bias is None else bias[by_cluster],
            group=n_out,
            name="outputs",
        )
        builder.output(_reorder(builder, x, inverse(by_cluster), "order"))
        return
    dense = np.zeros((conv.out_channels, n_out, n_in, rank))
    for h, members in enumerate(factors.output_clusters):
        dense[members, h] = factors.outputs[:, h].transpose(1, 0, 2)
    if in_out_order:
        dense = dense.swapaxes(1, 2)
    weight = dense.reshape(conv.out_channels, -1)
    builder.output(builder.conv(x, _pointwise(weight, conv), bias=bias, name="outputs"))


def _spatial(
    builder: SubgraphBuilder,
    x: str,
    conv: ConvSpec,
    *,
    weight: Array,
    bias: Array | None,
    group: int,
    name: str,
) -> str:
    """Emit the stage that carries the layer's own strides, dilations and pads."""
    return builder.conv(x, weight, bias=bias, window=conv.window, group=group, name=name)


def _pointwise(matrix: Array, conv: ConvSpec) -> Array:
    """Return a matrix as the weight of a 1x1 Conv of the layer's dimension."""
    return matrix.reshape(*matrix.shape, *(1,) * len(conv.kernel))


def _reorder(builder: SubgraphBuilder, x: str, permutation: Permutation, name: str) -> str:
    return x if is_identity(permutation) else builder.gather(x, permutation, axis=1, name=name)
