"""The error of a layer's output over data, exactly, from the moments of its inputs."""

from __future__ import annotations

import numpy as np

from onnx_lowrank.metrics.base import Weight
from onnx_lowrank.metrics.moments import DenseMoments, RowMoments
from onnx_lowrank.types import Array


def squared_output(
    moments: DenseMoments | RowMoments, weight: Weight, bias: Array | None = None
) -> float:
    """Return ``E|W x + b|^2`` over the inputs x, neither shrunk nor centred.

    With the difference of two weights and of two biases it is the expected squared error of the
    output: no run of the layer is needed.

    Parameters
    ----------
    moments : DenseMoments or RowMoments
        Of the layer's input.
    weight : ndarray, shape (F, C / group, *kernel), float64
        W; not changed.
    bias : ndarray, shape (F,), float64, optional
        b, 0 if not given.

    Returns
    -------
    float
        Of one output position, summed over the outputs; not negative.

    Raises
    ------
    ValueError
        The moments are of patches of another length or number of groups.
    """
    groups, length = moments.mean.shape
    if length * len(weight) != weight.size or len(weight) % groups:
        raise ValueError(
            f"moments of {groups} x {length} inputs do not fit a weight of {weight.shape}"
        )
    matrices = weight.reshape(groups, -1, length)
    if isinstance(moments, RowMoments):
        energy = float(np.sum(moments.weights @ (moments.rows @ matrices[0].T) ** 2))
    else:
        energy = float(np.vdot(matrices, matrices @ moments.second))
    if bias is None:
        return max(energy, 0.0)
    means = (matrices @ moments.mean[:, :, None]).reshape(len(weight))
    # Rounding may leave a difference of squares just below zero.
    return max(energy + float(2 * (bias @ means) + bias @ bias), 0.0)
