"""Tucker-2 of many blocks at once in the Frobenius norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_lowrank.schemes.fits.reduced_rank import leading
from onnx_lowrank.types import Array

MAX_SWEEPS = 30
TOLERANCE = 1e-4  # relative fall of the squared error at which a fit has converged
LARGE = 1_000_000  # entries of weights of which single precision saves time worth having
BATCHED = 64  # size of matrices up to which one batched call beats a call for each


def successive_svd(blocks: Array, k1: int, k2: int) -> tuple[Array, Array]:
    """Return the published start: rank K2 on the output side, then K1 on the input side.

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
    outputs = leading_left(output_grams(blocks), k2)
    return leading_left(input_grams(_project_outputs(blocks, outputs)), k1), outputs


def hooi(blocks: Array, inputs: Array, k2: int) -> tuple[Array, Array]:
    """Alternate the best output basis and the best input basis; never raises the error.

    De Lathauwer, De Moor and Vandewalle 2000, without the spatial axes.

    Parameters
    ----------
    blocks : ndarray, shape (B, F, C, P)
    inputs : ndarray, shape (B, C, K1), orthonormal columns
        Where to start.
    k2 : int
        Rank of the output side.

    Returns
    -------
    inputs : ndarray, shape (B, C, K1), orthonormal columns
    outputs : ndarray, shape (B, F, K2), orthonormal columns
    """
    if blocks.size > LARGE:
        # In single precision the alternation ends where it would, at half the time: a sweep gains
        # a part in 1e4 of the error, ten times what rounding adds. The last one is exact.
        rough: Any = blocks.astype(np.float32)
        inputs, _ = _alternate(rough, inputs.astype(np.float32), k2, MAX_SWEEPS)
        return _alternate(blocks, np.linalg.qr(inputs.astype(np.float64))[0], k2, 1)
    return _alternate(blocks, inputs, k2, MAX_SWEEPS)


def _alternate(blocks: Array, inputs: Array, k2: int, sweeps: int) -> tuple[Array, Array]:
    total = float(np.vdot(blocks, blocks))
    captured = -np.inf
    # With the inputs in front a projection is one large product, not one for every output.
    count, filters, channels, taps = blocks.shape
    by_inputs = np.ascontiguousarray(blocks.swapaxes(1, 2)).reshape(count, channels, -1)
    outputs = inputs
    for _ in range(sweeps):
        projected = (inputs.swapaxes(1, 2) @ by_inputs).reshape(count, -1, filters, taps)
        outputs = leading_left(input_grams(projected), k2)
        half = _project_outputs(blocks, outputs)
        gram = input_grams(half)
        inputs = leading_left(gram, inputs.shape[-1])
        energy = float(np.sum(inputs * (gram @ inputs)))
        if energy - captured <= TOLERANCE * max(total - energy, 0.0):
            break
        captured = energy
    return inputs, outputs


def core(blocks: Array, inputs: Array, outputs: Array) -> Array:
    """Return the cores, ``(B, K2, K1, P)``, that belong to orthonormal bases."""
    return _project_inputs(_project_outputs(blocks, outputs), inputs)


def leading_left(grams: Array, rank: int) -> Array:
    """Return the leading eigenvectors of each Gram matrix, ``(B, n, rank)``, with fixed signs.

    They are the leading left singular vectors of the matrices behind ``grams``, ``(B, n, n)``.
    """
    if grams.shape[-1] > BATCHED:
        return np.stack([leading(gram, rank) for gram in grams])
    _, vectors = np.linalg.eigh(grams)
    vectors = vectors[..., ::-1][..., :rank]
    pivot = np.abs(vectors).argmax(axis=-2)[..., None, :]
    sign = np.sign(np.take_along_axis(vectors, pivot, axis=-2))
    return np.asarray(vectors * np.where(sign == 0, 1.0, sign))


def output_grams(blocks: Array) -> Array:
    """Return the Gram matrices of the output side of blocks ``(B, F, C, P)``, ``(B, F, F)``."""
    flat = _unfold_outputs(blocks)
    return np.asarray(flat @ flat.swapaxes(1, 2))


def input_grams(blocks: Array) -> Array:
    """Return the Gram matrices of the input side of blocks ``(B, F, C, P)``, ``(B, C, C)``."""
    flat = blocks.swapaxes(1, 2).reshape(blocks.shape[0], blocks.shape[2], -1)
    return np.asarray(flat @ flat.swapaxes(1, 2))


def _unfold_outputs(blocks: Array) -> Array:
    return blocks.reshape(*blocks.shape[:2], -1)


def _project_outputs(blocks: Array, outputs: Array) -> Array:
    count, _, channels, taps = blocks.shape
    return (outputs.swapaxes(1, 2) @ _unfold_outputs(blocks)).reshape(count, -1, channels, taps)


def _project_inputs(blocks: Array, inputs: Array) -> Array:
    return np.asarray(inputs.swapaxes(1, 2)[:, None] @ blocks)
