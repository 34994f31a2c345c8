"""A layer's fit as arrays, as it is stored and sent, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.fitting.layer import LayerFit
from onnx_lowrank.schemes import Factors, Scheme

FORMAT = 4  # of stored fits and of the arithmetic behind them


def to_arrays(fit: LayerFit) -> dict[str, NDArray[Any]]:
    """Return a fit as arrays."""
    values = {f"factor.{name}": value for name, value in fit.factors.arrays().items()}
    if fit.bias is not None:
        values["bias"] = fit.bias
    values["kind"] = np.array(type(fit.factors).__name__)
    values["metric"] = np.array(fit.metric)
    values["figures"] = np.array([fit.start_error, fit.error, fit.seconds])
    return values


def from_arrays(
    layer: str, scheme: Scheme, conv: ConvSpec, arrays: Mapping[str, NDArray[Any]]
) -> LayerFit:
    """Return the fit of a layer that `to_arrays` gave.

    Raises
    ------
    ValueError, TypeError, KeyError
        The arrays are no fit, or that of another layer or of other ranks.
    """
    if any(value.dtype.kind == "f" and not np.isfinite(value).all() for value in arrays.values()):
        raise ValueError("a fit with NaN or infinity")
    values = {
        name.removeprefix("factor."): value
        for name, value in arrays.items()
        if name.startswith("factor.")
    }
    classes = {each.__name__: each for each in scheme.structures}
    factors = classes[str(arrays["kind"])](**values)
    if not any(_alike(factors, each) for each in scheme.instances(conv, None)):
        raise ValueError(f"no fit of {scheme.spec} to a weight {conv.weight_shape}")
    bias = arrays.get("bias")
    if bias is not None and (bias.dtype != np.float64 or bias.shape != (conv.out_channels,)):
        raise ValueError("a bias of another layer")
    start_error, error, seconds = map(float, arrays["figures"])
    return LayerFit(
        layer=layer,
        scheme=scheme,
        metric=str(arrays["metric"]),
        factors=factors,
        bias=bias,
        start_error=start_error,
        error=error,
        seconds=seconds,
    )


def _alike(factors: Factors, structure: Factors) -> bool:
    """Whether factors are of the class, types and shapes of others, and sort channels likewise."""
    if type(factors) is not type(structure):
        return False
    pairs = zip(factors.arrays().values(), structure.arrays().values(), strict=True)
    return all(
        (ours.dtype, ours.shape) == (other.dtype, other.shape)
        # Clusters are of one size, and every channel is in one of them.
        and (ours.dtype.kind == "f" or np.array_equal(np.sort(ours, None), np.sort(other, None)))
        for ours, other in pairs
    )
