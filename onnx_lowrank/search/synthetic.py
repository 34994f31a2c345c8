"""Factors of the right shapes and random values: a candidate's speed needs no data and no fit."""

from __future__ import annotations

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.fitting.layer import LayerFit, layer_rng
from onnx_lowrank.schemes import Scheme
from onnx_lowrank.schemes.instances import uniform


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
        One, but for the scheme `spatial` where the fit decides the order of its two convolutions.
        Errors are NaN: there was no fit.
    """
    rng = layer_rng(0, layer)
    bias = uniform(rng, [conv.out_channels])
    nan = float("nan")
    return tuple(
        LayerFit(layer, scheme, "none", factors, bias, nan, nan, 0.0)
        for factors in scheme.instances(conv, rng)
    )
