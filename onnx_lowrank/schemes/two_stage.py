"""A kxk stage to R channels per group, then a 1x1 stage to all outputs, and its best fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.metrics.covariance import Covariance, RowCovariance
from onnx_lowrank.schemes.base import Fit, Weight, check_finite, relative_error
from onnx_lowrank.schemes.reduced_rank import reduced_rank

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TwoStageFactors:
    """``W[g, f] = sum_r outputs[g, f, r] kernels[g, r]`` for every group g.

    Attributes
    ----------
    kernels : ndarray, shape (group, R, C / group, *kernel)
        The first stage, which carries the layer's kernel, strides, dilations and pads.
    outputs : ndarray, shape (group, F / group, R)
        The 1x1 stage.
    """

    kernels: Array
    outputs: Array

    def reconstruct(self) -> Weight:
        """Return the dense weight, ``(F, C / group, *kernel)``."""
        group, rank, *rest = self.kernels.shape
        dense = self.outputs @ self.kernels.reshape(group, rank, -1)
        return np.asarray(dense.reshape(-1, *rest))


def fit_two_stage(weight: Weight, rank: int, metric: Metric, group: int) -> Fit:
    """Fit by reduced-rank regression: the leading principal components of the responses.

    The published construction (the truncated SVD of the weight) is the start whose error is
    stated. In the covariance metric the fit is the optimum in closed form; in a metric that is
    not one of the inputs it is the better of that and of the start.

    Parameters
    ----------
    weight : ndarray, shape (F, C / group, *kernel)
        The dense weight.
    rank : int
        Channels per group between the stages.
    metric : Metric
        What the error is measured in.
    group : int
        Number of groups.
    """
    check_finite(weight)
    start = _factors(weight, weight, rank, group, None)
    norm = metric.squared_norm(weight)
    start_error = relative_error(metric.squared_norm(weight - start.reconstruct()), norm)
    if metric.name == "frobenius":
        return Fit(start, start_error, start_error)
    scale = _output_scale(metric)
    image = metric.apply(weight)
    if scale is not None:
        # The metric's D W Sigma, as D^(1/2) W Sigma: that of the scaled problem D^(1/2) W.
        image = image / _column(scale, weight)
    final = _factors(weight, image, rank, group, scale)
    error = relative_error(metric.squared_norm(weight - final.reconstruct()), norm)
    better = error <= start_error
    return Fit(final if better else start, start_error, min(error, start_error))


def _factors(
    weight: Weight, image: Weight, rank: int, group: int, scale: Array | None
) -> TwoStageFactors:
    """Fit every group; `image` is ``W Sigma``, or the weight itself where Sigma is the identity."""
    size = len(weight) // group
    root = np.ones(len(weight)) if scale is None else scale
    kernels, outputs = [], []
    for g in range(group):
        rows = slice(g * size, (g + 1) * size)
        matrix = root[rows, None] * weight[rows].reshape(size, -1)
        responses = None if image is weight else image[rows].reshape(size, -1) @ matrix.T
        b, a = reduced_rank(matrix, rank, responses)
        outputs.append(b / root[rows, None])
        kernels.append(a.reshape(rank, *weight.shape[1:]))
    return TwoStageFactors(np.stack(kernels), np.stack(outputs))


def _output_scale(metric: Metric) -> Array | None:
    """Return the square roots of the metric's output weights; None where all outputs count alike.

    An output that counts for nothing still gets a little weight, so that its scale can be undone.
    """
    weights = metric.outputs if isinstance(metric, Covariance | RowCovariance) else None
    if weights is None or not weights.any():
        return None
    return np.asarray(np.sqrt(np.maximum(weights, 1e-12 * weights.max())))


def _column(values: Array, weight: Weight) -> Array:
    return values.reshape(-1, *(1,) * (weight.ndim - 1))
