"""CP of many blocks at once in the Frobenius norm: sums of K rank-1 terms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RANK_ONE_SWEEPS = 12
MAX_SWEEPS = 60
TOLERANCE = 1e-5  # relative fall of the squared error in a sweep at which a fit has converged
RIDGE = 1e-9  # relative to the mean squared norm of a component: bounds components that would cancel each other


@dataclass(frozen=True)
class CPTerms:
    """``sum_k outputs[b, f, k] kernels[b, k, p] inputs[b, k, c]`` for every block b."""

    inputs: Array
    kernels: Array
    outputs: Array

    def dense(self) -> Array:
        """Return the blocks, ``(B, F, C, P)``."""
        count, rank, channels = self.inputs.shape
        pairs = (self.inputs[..., None] * self.kernels[:, :, None]).reshape(count, rank, -1)
        return (self.outputs @ pairs).reshape(count, -1, channels, self.kernels.shape[-1])


def greedy_deflation(blocks: Array, rank: int) -> CPTerms:
    """Return the published start: the best rank-1 term of what is left, `rank` times."""
    residual = blocks.copy()
    terms = []
    for _ in range(rank):
        term = _rank_one(residual)
        residual -= term.dense()
        terms.append(term)
    return CPTerms(
        np.concatenate([t.inputs for t in terms], axis=1),
        np.concatenate([t.kernels for t in terms], axis=1),
        np.concatenate([t.outputs for t in terms], axis=2),
    )


def _rank_one(blocks: Array) -> CPTerms:
    kernel = np.linalg.eigh(_tap_gram(blocks))[1][..., -1]
    a = _leading_right(np.einsum("bfcp,bp->bfc", blocks, kernel))
    for _ in range(RANK_ONE_SWEEPS):
        b = _unit(np.einsum("bfc,bc->bf", np.einsum("bfcp,bp->bfc", blocks, kernel), a))
        half = np.einsum("bf,bfcp->bcp", b, blocks, optimize=True)
        kernel = _unit(np.einsum("bcp,bc->bp", half, a))
        a = np.einsum("bcp,bp->bc", half, kernel)
        scale = np.linalg.norm(a, axis=-1, keepdims=True)
        a = _unit(a)
    return CPTerms(a[:, None], (kernel * scale)[:, None], b[..., None])


def spatial_svd(blocks: Array, rank: int) -> CPTerms:
    """Return a start of `rank` terms that is the best with orthonormal spatial filters of one basis.

    The principal spatial filters of a block turn it into P matrices F x C; the `rank` largest singular triplets of all of
    them are kept.
    """
    count, outputs, channels, taps = blocks.shape
    _, basis = np.linalg.eigh(_tap_gram(blocks))
    u, s, vt = np.linalg.svd(np.einsum("bfcp,bpq->bqfc", blocks, basis), full_matrices=False)
    width = s.shape[-1]
    order = np.argsort(-s.reshape(count, -1), axis=-1, kind="stable")[:, :rank]
    block, q, r = np.arange(count)[:, None], order // width, order % width
    return CPTerms(
        vt[block, q, r],
        basis.swapaxes(1, 2)[block, q] * s[block, q, r][..., None],
        u.swapaxes(2, 3)[block, q, r].swapaxes(1, 2),
    )


def exact_terms(blocks: Array) -> CPTerms:
    """Return terms that are exactly the blocks: one for every pair of indices of the two shortest sides."""
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


def als(blocks: Array, start: CPTerms) -> CPTerms:
    """Alternating least squares over all terms, with extrapolation; every block keeps the best terms it has seen.

    A ridge bounds terms that grow against each other, the known way of CP to diverge (de Silva and Lim 2008).
    """
    total = np.sum(blocks**2, axis=(1, 2, 3))
    now = _balanced(start)
    best, best_error = now, squared_errors(blocks, now)
    previous, checked = now, best_error.sum()
    for sweep in range(1, MAX_SWEEPS + 1):
        now = _sweep(blocks, now)
        error = squared_errors(blocks, now)
        if sweep > 2:
            # Along the last move: ALS crawls through valleys, and most of its moves point the same way.
            ahead = _extrapolated(previous, now, sweep ** (1 / 3))
            ahead_error = squared_errors(blocks, ahead)
            better = ahead_error < error
            now, error = select(better, ahead, now), np.where(better, ahead_error, error)
        previous = now
        improved = error < best_error
        best, best_error = select(improved, now, best), np.where(improved, error, best_error)
        if sweep % 5 == 0:
            if checked - best_error.sum() <= 5 * TOLERANCE * best_error.sum() + 1e-14 * total.sum():
                break
            checked = best_error.sum()
    return best


def squared_errors(blocks: Array, terms: CPTerms) -> Array:
    """Return the squared error of every block, ``(B,)``."""
    return np.asarray(np.sum((blocks - terms.dense()) ** 2, axis=(1, 2, 3)))


def _sweep(blocks: Array, terms: CPTerms) -> CPTerms:
    """Update outputs, inputs and kernels in turn, each by linear least squares."""
    count, f, c, p = blocks.shape
    a, d, b = terms.inputs, terms.kernels, terms.outputs
    pairs = (a[..., None] * d[:, :, None]).reshape(count, -1, c * p)
    b = _solve(_gram(a) * _gram(d), blocks.reshape(count, f, -1) @ pairs.swapaxes(1, 2))
    half = (b.swapaxes(1, 2) @ blocks.reshape(count, f, -1)).reshape(count, -1, c, p)
    outer = b.swapaxes(1, 2) @ b
    a = _solve(outer * _gram(d), (half @ d[..., None])[..., 0].swapaxes(1, 2)).swapaxes(1, 2)
    d = _solve(outer * _gram(a), (a[:, :, None] @ half)[:, :, 0].swapaxes(1, 2)).swapaxes(1, 2)
    return _balanced(CPTerms(a, d, b))


def _solve(gram: Array, right: Array) -> Array:
    """Return X with ``X gram = right`` for every block, under the ridge."""
    size = gram.shape[-1]
    ridge = RIDGE * np.trace(gram, axis1=1, axis2=2)[:, None, None] / size + np.finfo(float).tiny
    solution = np.linalg.solve(gram + ridge * np.eye(size), right.swapaxes(1, 2))
    return np.asarray(solution.swapaxes(1, 2))


def _gram(rows: Array) -> Array:
    return np.asarray(rows @ rows.swapaxes(1, 2))


def _balanced(terms: CPTerms) -> CPTerms:
    """Share every term's scale equally between its three vectors."""
    norms = [
        np.linalg.norm(terms.inputs, axis=2),
        np.linalg.norm(terms.kernels, axis=2),
        np.linalg.norm(terms.outputs, axis=1),
    ]
    mean = np.cbrt(norms[0] * norms[1] * norms[2])
    a, d, b = (
        np.divide(mean, n, out=np.zeros_like(mean), where=n > np.finfo(float).tiny) for n in norms
    )
    return CPTerms(
        terms.inputs * a[..., None], terms.kernels * d[..., None], terms.outputs * b[:, None]
    )


def _extrapolated(old: CPTerms, new: CPTerms, step: float) -> CPTerms:
    return CPTerms(
        old.inputs + step * (new.inputs - old.inputs),
        old.kernels + step * (new.kernels - old.kernels),
        old.outputs + step * (new.outputs - old.outputs),
    )


def select(chosen: NDArray[np.bool_], one: CPTerms, other: CPTerms) -> CPTerms:
    """Take `one` for the chosen blocks and `other` for the rest."""
    pick = chosen[:, None, None]
    return CPTerms(
        np.where(pick, one.inputs, other.inputs),
        np.where(pick, one.kernels, other.kernels),
        np.where(pick, one.outputs, other.outputs),
    )


def _tap_gram(blocks: Array) -> Array:
    return np.asarray(np.einsum("bfcp,bfcq->bpq", blocks, blocks, optimize=True))


def _leading_right(matrices: Array) -> Array:
    """Return the leading right singular vector of each matrix, ``(B, C)``."""
    return np.asarray(np.linalg.eigh(matrices.swapaxes(1, 2) @ matrices)[1][..., -1])


def _unit(vectors: Array) -> Array:
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
