"""The structure of a kxk stage to R channels per group, then a 1x1 stage to all outputs, and its best fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.schemes.base import Fit, Weight
from onnx_lowrank.schemes.reduced_rank import Matrix, reduced_rank


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

    kernels: Matrix
    outputs: Matrix

    def reconstruct(self) -> Weight:
        """Return the dense weight, ``(F, C / group, *kernel)``."""
        group, rank, *rest = self.kernels.shape
        dense = self.outputs @ self.kernels.reshape(group, rank, -1)
        return dense.reshape(-1, *rest)


def fit_two_stage(weight: Weight, rank: int, metric: Metric) -> Fit:
    """Fit by reduced-rank regression: the leading principal components of the responses.

    The published construction (the truncated SVD of the weight) is the start whose error is stated.

    Parameters
    ----------
    weight : ndarray, shape (F, C / group, *kernel)
        The dense weight.
    rank : int
        Channels per group between the stages.
    metric : Metric
        What the error is measured in.
    """
    raise NotImplementedError
