"""Tucker-2 of many blocks at once in the Frobenius norm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MAX_SWEEPS = 30
TOLERANCE = 1e-6  # relative fall of the squared error at which a fit has converged


def successive_svd(blocks: Array, k1: int, k2: int) -> tuple[Array, Array]:
    """Return the published start: rank K2 on the output side, then K1 on the input side of what is left.

    Parameters
    ----------
    blocks : ndarray, shape (B, F, C, P)
    k1, k2 : int
        Ranks of the input and of the output side.

    Returns
    -------
    inputs : ndarray, shape (B, C, K1), orthonormal columns
    outputs : ndarray, shape (B, F, K2), orthonormal columns
    """
    outputs = leading_left(_unfold_outputs(blocks), k2)
    return leading_left(_unfold_inputs(_project_outputs(blocks, outputs)), k1), outputs


def hooi(blocks: Array, inputs: Array, k2: int) -> tuple[Array, Array]:
    """Alternate the best output basis and the best input basis (De Lathauwer et al. 2000); never raises the error.

    Returns
    -------
    inputs : ndarray, shape (B, C, K1)
    outputs : ndarray, shape (B, F, K2)
    """
    total = np.sum(blocks**2)
    k1, captured = inputs.shape[-1], -np.inf
    for _ in range(MAX_SWEEPS):
        outputs = leading_left(_unfold_outputs(_project_inputs(blocks, inputs)), k2)
        half = _project_outputs(blocks, outputs)
        inputs = leading_left(_unfold_inputs(half), k1)
        energy = float(np.sum(_project_inputs(half, inputs) ** 2))
        if energy - captured <= TOLERANCE * max(total - energy, 0.0):
            break
        captured = energy
    return inputs, outputs


def core(blocks: Array, inputs: Array, outputs: Array) -> Array:
    """Return the cores, ``(B, K2, K1, P)``, that belong to orthonormal bases."""
    return _project_inputs(_project_outputs(blocks, outputs), inputs)


def leading_left(matrices: Array, rank: int) -> Array:
    """Return the `rank` leading left singular vectors of each matrix, ``(B, m, rank)``, with fixed signs."""
    _, vectors = np.linalg.eigh(matrices @ matrices.swapaxes(-1, -2))
    vectors = vectors[..., ::-1][..., :rank]
    pivot = np.abs(vectors).argmax(axis=-2)[..., None, :]
    sign = np.sign(np.take_along_axis(vectors, pivot, axis=-2))
    return np.asarray(vectors * np.where(sign == 0, 1.0, sign))


def _unfold_outputs(blocks: Array) -> Array:
    return blocks.reshape(*blocks.shape[:2], -1)


def _unfold_inputs(blocks: Array) -> Array:
    return blocks.swapaxes(1, 2).reshape(blocks.shape[0], blocks.shape[2], -1)


def _project_outputs(blocks: Array, outputs: Array) -> Array:
    count, _, channels, taps = blocks.shape
    return (outputs.swapaxes(1, 2) @ _unfold_outputs(blocks)).reshape(count, -1, channels, taps)


def _project_inputs(blocks: Array, inputs: Array) -> Array:
    return np.asarray(inputs.swapaxes(1, 2)[:, None] @ blocks)
