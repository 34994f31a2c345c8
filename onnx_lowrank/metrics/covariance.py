"""The data covariance metric: the expected squared error of a layer's output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_lowrank.metrics.base import Weight
from onnx_lowrank.types import Array


@dataclass(frozen=True, eq=False)
class Covariance:
    """``sum_f d_f W_f Sigma W_f^T``: ``E|W x|^2`` over the input patches x, outputs weighted by d.

    A patch has ``K = C / group * taps`` entries, channel first: index ``c * taps + p``, the order
    of a weight's own axes. Denton et al. 2014, section 3.1.

    Attributes
    ----------
    moment : ndarray, shape (groups, K, K), float64
        Sigma of every group: symmetric, positive semi-definite.
    outputs : ndarray, shape (F,), float64, or None
        Weight d of every output, not negative; None counts all alike. From gradients they come by
        `Mahalanobis.output_weights`.
    """

    moment: Array
    outputs: Array | None = None
    name: str = "covariance"

    def squared_norm(self, weight: Weight) -> float:
        """Return the expected squared output of a weight, ``(F, C / group, *kernel)``."""
        return float(np.vdot(weight, self.apply(weight)))

    def apply(self, weight: Weight) -> Weight:
        """Return ``d_f W_f Sigma``, of the shape of `weight`."""
        groups, length, _ = self.moment.shape
        product = weight.reshape(groups, -1, length) @ self.moment
        return _weighted(product.reshape(weight.shape), self.outputs)


@dataclass(frozen=True, eq=False)
class RowCovariance:
    """The covariance metric with ``Sigma = rows^T rows + ridge I``, never formed.

    For fully connected layers with more inputs than samples, and for kernels whose moments would be
    too large.

    Attributes
    ----------
    rows : ndarray, shape (n, K), float64
        Scaled samples of the input of a layer without groups.
    ridge : float
        Multiple of the identity, not negative.
    outputs : ndarray, shape (F,), float64, or None
        Weight of every output, as in `Covariance`.
    """

    rows: Array
    ridge: float
    outputs: Array | None = None
    name: str = "covariance"

    def squared_norm(self, weight: Weight) -> float:
        """Return the expected squared output of a weight, ``(F, C, *kernel)``."""
        return float(np.vdot(weight, self.apply(weight)))

    def apply(self, weight: Weight) -> Weight:
        """Return ``d_f W_f Sigma``, of the shape of `weight`."""
        matrix = weight.reshape(len(weight), -1)
        product = (matrix @ self.rows.T) @ self.rows + self.ridge * matrix
        return _weighted(product.reshape(weight.shape), self.outputs)


def _weighted(weight: Weight, outputs: Array | None) -> Weight:
    if outputs is None:
        return weight
    return outputs.reshape(-1, *(1,) * (weight.ndim - 1)) * weight
