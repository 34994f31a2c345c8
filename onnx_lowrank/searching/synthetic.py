"""Factors of the right shapes and random values: a candidate's speed needs no data and no fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.planning.fit import LayerFit, layer_rng
from onnx_lowrank.schemes import Factors, Scheme
from onnx_lowrank.schemes.bicluster import BiclusterOuter, BiclusterSVD
from onnx_lowrank.schemes.channel import TwoStageScheme
from onnx_lowrank.schemes.factors import (
    BlockCPFactors,
    BlockTucker2Factors,
    MonochromaticFactors,
    SpatialFactors,
)
from onnx_lowrank.schemes.monochromatic import Monochromatic
from onnx_lowrank.schemes.one_block import CP, Tucker2
from onnx_lowrank.schemes.spatial import Spatial, orders
from onnx_lowrank.schemes.two_stage import TwoStageFactors
from onnx_lowrank.types import Array


def synthetic_fits(layer: str, scheme: Scheme, conv: ConvSpec) -> tuple[LayerFit, ...]:
    """Return a fit of random values for each structure that a fit of `scheme` may come out with.

    Parameters
    ----------
    layer : str
        The layer's name; it fixes the values.
    scheme : Scheme
        Structure and ranks.
    conv : ConvSpec
        The layer.

    Returns
    -------
    tuple of LayerFit
        One, but for the scheme `spatial` where the fit decides the order of the stages. Errors are
        NaN: there was no fit.

    Raises
    ------
    TypeError
        The scheme is not known here.
    """
    rng = layer_rng(0, layer)
    bias = _uniform(rng, [conv.out_channels])
    nan = float("nan")
    return tuple(
        LayerFit(layer, scheme, "none", factors, bias, nan, nan, 0.0)
        for factors in _factors(scheme, conv, rng)
    )


def _factors(scheme: Scheme, conv: ConvSpec, rng: np.random.Generator) -> Sequence[Factors]:
    c, f, kernel = conv.in_channels, conv.out_channels, conv.kernel
    if isinstance(scheme, Monochromatic):
        # In random order, as clusters of a fit are: outputs in order would save a Gather.
        colour_of = rng.permutation(np.repeat(np.arange(scheme.C), f // scheme.C))
        return [
            MonochromaticFactors(
                _uniform(rng, [scheme.C, c]), _uniform(rng, [f, *kernel]), colour_of
            )
        ]
    if isinstance(scheme, TwoStageScheme):
        group = conv.group
        return [
            TwoStageFactors(
                _uniform(rng, [group, scheme.R, c // group, *kernel]),
                _uniform(rng, [group, f // group, scheme.R]),
            )
        ]
    if isinstance(scheme, Spatial):
        x, y = kernel
        return [
            SpatialFactors(
                _uniform(rng, [scheme.R, c, *first]), _uniform(rng, [f, scheme.R, *second])
            )
            for order in orders(conv.weight_shape)
            for first, second in [((x, 1), (1, y)) if order == "column first" else ((1, y), (x, 1))]
        ]
    if isinstance(scheme, Tucker2):
        return [_tucker2(BiclusterSVD(1, 1, scheme.R1, scheme.R2), conv, rng)]
    if isinstance(scheme, CP):
        return [_cp(BiclusterOuter(1, 1, scheme.R), conv, rng)]
    if isinstance(scheme, BiclusterSVD):
        return [_tucker2(scheme, conv, rng)]
    if isinstance(scheme, BiclusterOuter):
        return [_cp(scheme, conv, rng)]
    raise TypeError(f"no synthetic factors for {type(scheme).__name__}")


def _tucker2(scheme: BiclusterSVD, conv: ConvSpec, rng: np.random.Generator) -> BlockTucker2Factors:
    blocks = [scheme.G, scheme.H]
    return BlockTucker2Factors(
        _clusters(rng, conv.in_channels, scheme.G),
        _clusters(rng, conv.out_channels, scheme.H),
        _uniform(rng, [*blocks, scheme.K1, conv.in_channels // scheme.G]),
        _uniform(rng, [*blocks, scheme.K2, scheme.K1, *conv.kernel]),
        _uniform(rng, [*blocks, conv.out_channels // scheme.H, scheme.K2]),
    )


def _cp(scheme: BiclusterOuter, conv: ConvSpec, rng: np.random.Generator) -> BlockCPFactors:
    blocks = [scheme.G, scheme.H]
    return BlockCPFactors(
        _clusters(rng, conv.in_channels, scheme.G),
        _clusters(rng, conv.out_channels, scheme.H),
        _uniform(rng, [*blocks, scheme.K, conv.in_channels // scheme.G]),
        _uniform(rng, [*blocks, scheme.K, *conv.kernel]),
        _uniform(rng, [*blocks, conv.out_channels // scheme.H, scheme.K]),
    )


def _clusters(rng: np.random.Generator, channels: int, clusters: int) -> NDArray[np.int64]:
    order = np.arange(channels) if clusters == 1 else rng.permutation(channels)
    return np.sort(order.reshape(clusters, -1), axis=1).astype(np.int64)


def _uniform(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """Return values of both signs that keep activations of unit size.

    None is near zero: products in a chain of stages stay far from denormals, which run slower.
    """
    fan_in = max(int(np.prod(shape[1:])), 1)
    magnitude = rng.uniform(0.5, 1.5, shape) / np.sqrt(fan_in)
    return np.asarray(magnitude * rng.choice([-1.0, 1.0], shape))
