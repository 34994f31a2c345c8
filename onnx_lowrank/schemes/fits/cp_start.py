"""Where CP fits start: the published deflation, an SVD per spatial filter, and the exact terms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_lowrank.schemes.fits.cp_als import CPTerms
from onnx_lowrank.schemes.fits.hooi import leading_left
from onnx_lowrank.types import Array

RANK_ONE_SWEEPS = 3
POWER_STEPS = 3


def greedy_deflation(blocks: Array, rank: int) -> CPTerms:
    """Return the published start: a good rank-1 term of what is left, `rank` times.

    A term's output vector starts at the leading one of the residual's unfolding, of which a Gram
    matrix is kept up to date; the residual itself is never formed: a product with it is a product
    with the blocks less one with the terms so far.

    Parameters
    ----------
    blocks : ndarray, shape (B, F, C, P)
    rank : int
        Number of terms.
    """
    count, f, c, p = blocks.shape
    flat = blocks.reshape(count, f, -1)
    gram = flat @ flat.swapaxes(1, 2)
    inputs = np.zeros((count, rank, c))
    kernels = np.zeros((count, rank, p))
    outputs = np.zeros((count, f, rank))
    b = leading_left(gram, 1)[..., 0]
    for k in range(rank):
        before = outputs[:, :, :k], kernels[:, :k], inputs[:, :k]
        for _ in range(POWER_STEPS):
            b = _unit((gram @ b[..., None])[..., 0])
        for _ in range(RANK_ONE_SWEEPS):
            half = _times_outputs(flat, b, *before).reshape(count, c, p)
            d = np.linalg.eigh(half.swapaxes(1, 2) @ half)[1][..., -1]
            a = _unit((half @ d[..., None])[..., 0])
            b = _times_pair(flat, a, d, *before)
            scale = np.linalg.norm(b, axis=-1, keepdims=True)
            b = _unit(b)
        inputs[:, k], kernels[:, k], outputs[:, :, k] = a, d * scale, b
        # (R - s b x^T)(R - s b x^T)^T with R x = s b and |x| = 1 is R R^T - s^2 b b^T.
        gram -= (scale**2)[..., None] * b[:, :, None] * b[:, None]
    return CPTerms(inputs, kernels, outputs)


def _times_outputs(flat: Array, b: Array, outputs: Array, kernels: Array, inputs: Array) -> Array:
    """Return the residual multiplied by a vector over the outputs, ``(B, C * P)``."""
    weights = (b[:, None] @ outputs)[:, 0]
    known = (inputs * weights[..., None]).swapaxes(1, 2) @ kernels
    whole = np.stack([vector @ block for vector, block in zip(b, flat, strict=True)])
    return np.asarray(whole - known.reshape(len(flat), -1))


def _times_pair(
    flat: Array, a: Array, d: Array, outputs: Array, kernels: Array, inputs: Array
) -> Array:
    """Return the residual multiplied by an outer product over inputs and taps, ``(B, F)``."""
    weights = (inputs @ a[..., None])[..., 0] * (kernels @ d[..., None])[..., 0]
    pair = (a[:, :, None] * d[:, None]).reshape(len(flat), -1)
    whole = np.stack([block @ vector for vector, block in zip(pair, flat, strict=True)])
    return np.asarray(whole - (outputs @ weights[..., None])[..., 0])


@dataclass(frozen=True, eq=False)
class SpatialSVD:
    """The principal spatial filters of blocks, and what each makes of its block, decomposed.

    Attributes
    ----------
    basis : ndarray, shape (B, P, P)
        Filters as columns.
    slices : ndarray, shape (B, P, F, C)
        What every filter makes of its block.
    values : ndarray, shape (B, P, min(F, C))
        Squared singular values of the slices.
    vectors : ndarray, shape (B, P, min(F, C), min(F, C))
        Their singular vectors, of the shorter side.
    """

    basis: Array
    slices: Array
    values: Array
    vectors: Array

    @classmethod
    def of(cls, blocks: Array) -> SpatialSVD:
        """Decompose blocks ``(B, F, C, P)``."""
        count, f, c, p = blocks.shape
        rows = blocks.reshape(count, -1, p)
        basis = np.linalg.eigh(rows.swapaxes(1, 2) @ rows)[1]
        slices = (rows @ basis).reshape(count, f, c, p).transpose(0, 3, 1, 2)
        # Of the Gram matrices' eigenvalues: singular values below sqrt(eps) of the largest are not
        # resolved, and no start needs them to be.
        other = slices.swapaxes(2, 3)
        values, vectors = np.linalg.eigh(slices @ other if f <= c else other @ slices)
        return cls(basis, slices, values, vectors)

    def leading(self, rank: int) -> CPTerms:
        """Return the terms of the `rank` largest singular values of every block.

        There are ``P min(F, C)``; no weight needs more.
        """
        count, p, f, c = self.slices.shape
        width = self.values.shape[-1]
        order = np.argsort(-self.values.reshape(count, -1), axis=-1, kind="stable")[:, :rank]
        inputs, kernels, outputs = (
            np.zeros((count, rank, c)),
            np.zeros((count, rank, p)),
            np.zeros((count, f, rank)),
        )
        for block in range(count):
            for q in range(p):
                terms = np.flatnonzero(order[block] // width == q)
                side = self.vectors[block, q][:, order[block, terms] % width]
                if f <= c:
                    outputs[block][:, terms] = side
                    inputs[block, terms] = side.T @ self.slices[block, q]
                else:
                    inputs[block, terms] = side.T
                    outputs[block][:, terms] = self.slices[block, q] @ side
                kernels[block, terms] = self.basis[block, :, q]
        return CPTerms(inputs, kernels, outputs)


def spatial_svd(blocks: Array, rank: int) -> CPTerms:
    """Return the best `rank` terms whose spatial filters are principal ones of their block.

    The principal spatial filters of a block turn it into P matrices F x C; the `rank` largest
    singular triplets of all of them are kept.

    Parameters
    ----------
    blocks : ndarray, shape (B, F, C, P)
    rank : int
        Number of terms, at most ``P min(F, C)``; no weight needs more.
    """
    return SpatialSVD.of(blocks).leading(rank)


def exact_terms(blocks: Array) -> CPTerms:
    """Return terms that are exactly the blocks: one per pair of indices of the shortest sides.

    Parameters
    ----------
    blocks : ndarray, shape (B, F, C, P)
    """
    count, f, c, p = blocks.shape
    eye_f, eye_c, eye_p = (np.broadcast_to(np.eye(n), (count, n, n)) for n in (f, c, p))
    if f == max(f, c, p):
        terms = (np.repeat(eye_c, p, 1), np.tile(eye_p, (1, c, 1)), blocks.reshape(count, f, -1))
    elif c == max(c, p):
        values = blocks.transpose(0, 1, 3, 2).reshape(count, f * p, c)
        terms = (values, np.tile(eye_p, (1, f, 1)), np.repeat(eye_f, p, 2))
    else:
        values = blocks.reshape(count, f * c, p)
        terms = (np.tile(eye_c, (1, f, 1)), values, np.repeat(eye_f, c, 2))
    return CPTerms(*terms)


def _unit(vectors: Array) -> Array:
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0))
