"""The first stage of a scheme: channels that sum over the lines of a patch, cluster by cluster."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.types import Array

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class InputStage:
    """``A[j, c]``: what channel j takes of line c, at every tap alike.

    Attributes
    ----------
    clusters : ndarray of int64, shape (G, C' / G)
        The lines of every cluster.
    weights : ndarray, shape (G, K, C' / G)
        What each of the K channels of a cluster takes of its lines; J = G K.
    """

    clusters: Indices
    weights: Array

    @classmethod
    def whole(cls, weights: Array) -> InputStage:
        """Return the stage of one cluster, of weights ``(J, C')``."""
        return cls(np.arange(weights.shape[1])[None], weights[None])

    def dense(self, lines: int) -> Array:
        """Return the weights as a matrix over all lines, ``(J, C')``."""
        dense = np.zeros((*self.weights.shape[:2], lines))
        for block, chosen, rows in zip(dense, self.clusters, self.weights, strict=True):
            block[:, chosen] = rows
        return dense.reshape(-1, lines)

    def gather(self, dense: Array) -> Array:
        """Return what a matrix over all lines, ``(J, C')``, has at the places of the weights."""
        blocks = dense.reshape(*self.weights.shape[:2], -1)
        return np.stack([b[:, lines] for b, lines in zip(blocks, self.clusters, strict=True)])

    def moved(self, direction: Array, step: float) -> InputStage:
        """Return the stage with weights some way along a direction."""
        return InputStage(self.clusters, self.weights + step * direction)
