"""CP of many blocks at once in the Frobenius norm: sums of K rank-1 terms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.types import Array

MAX_SWEEPS = 60
TOLERANCE = 1e-3  # relative fall of the squared error in a sweep at which a fit has converged
# Relative to the mean squared norm of a component: bounds components that would cancel each other.
RIDGE = 1e-9


@dataclass(frozen=True)
class CPTerms:
    """``sum_k outputs[b, f, k] kernels[b, k, p] inputs[b, k, c]`` for every block b.

    Attributes
    ----------
    inputs : ndarray, shape (B, K, C)
    kernels : ndarray, shape (B, K, P)
    outputs : ndarray, shape (B, F, K)
    """

    inputs: Array
    kernels: Array
    outputs: Array

    def pairs(self) -> Array:
        """Return the products of inputs and kernels, ``(B, K, C * P)``."""
        count, rank, _ = self.inputs.shape
        return (self.inputs[..., None] * self.kernels[:, :, None]).reshape(count, rank, -1)

    def astype(self, dtype: np.dtype[np.floating]) -> CPTerms:
        """Return the terms in another precision."""
        arrays = self.inputs, self.kernels, self.outputs
        return CPTerms(*(array.astype(dtype, copy=False) for array in arrays))

    def dense(self) -> Array:
        """Return the blocks, ``(B, F, C, P)``."""
        dense = self.outputs @ self.pairs()
        return dense.reshape(*dense.shape[:2], -1, self.kernels.shape[-1])


def als(
    blocks: Array,
    start: CPTerms,
    *,
    sweeps: int = MAX_SWEEPS,
    tolerance: float = TOLERANCE,
) -> CPTerms:
    """Alternating least squares over all terms, extrapolated; never worse than the start.

    A ridge bounds terms that grow against each other, the known way of CP to diverge (de Silva and
    Lim 2008). Every sweep starts a little beyond where the last one ended, along its move; where
    that raised a block's error, the block goes back to the best terms it had.

    It works in the precision of the blocks.
    """
    flat = blocks.reshape(*blocks.shape[:2], -1)
    total = np.asarray(np.sum(flat**2, axis=(1, 2), dtype=np.float64))
    best = now = _balanced(start.astype(blocks.dtype))
    best_error, checked = squared_errors(blocks, now), np.inf
    momentum = np.zeros(len(blocks))
    for _ in range(sweeps):
        after, error = _sweep(blocks, now, total)
        improved, plain = error < best_error, momentum == 0
        momentum = np.where(improved, np.minimum(momentum + 0.1, 0.9), 0.0)
        ahead = _extrapolated(best, after, momentum)
        # From the best terms a plain sweep cannot fail; from beyond them it can.
        now = select(improved, ahead, best)
        best, best_error = select(improved, after, best), np.where(improved, error, best_error)
        # A plain sweep that gained nothing has converged; one from beyond says nothing yet.
        if (improved | plain).all() and checked - best_error.sum() <= tolerance * best_error.sum():
            break
        if best_error.sum() <= 1e-24 * total.sum():
            break
        checked = best_error.sum()
    return best


def squared_errors(blocks: Array, terms: CPTerms) -> Array:
    """Return the squared error of every block, ``(B,)``."""
    return np.asarray(np.sum((blocks - terms.dense()) ** 2, axis=(1, 2, 3)))


def update_outputs(blocks: Array, terms: CPTerms) -> Array:
    """Return the least-squares outputs, ``(B, F, K)``, given the inputs and the kernels."""
    flat = blocks.reshape(*blocks.shape[:2], -1)
    gram = _gram(terms.inputs) * _gram(terms.kernels)
    return _solve(gram, flat @ terms.pairs().swapaxes(1, 2))


def half_product(blocks: Array, outputs: Array) -> Array:
    """Return the blocks multiplied by the outputs, ``(B, K, C, P)``."""
    flat = blocks.reshape(*blocks.shape[:2], -1)
    half = outputs.swapaxes(1, 2) @ flat
    return half.reshape(*half.shape[:2], *blocks.shape[2:])


def update_inputs(half: Array, terms: CPTerms) -> Array:
    """Return the least-squares inputs, ``(B, K, C)``; `half` belongs to the terms' outputs."""
    gram = _gram(terms.outputs.swapaxes(1, 2)) * _gram(terms.kernels)
    right = (half @ terms.kernels[..., None])[..., 0]
    return _solve(gram, right.swapaxes(1, 2)).swapaxes(1, 2)


def update_kernels(half: Array, terms: CPTerms) -> Array:
    """Return the least-squares kernels, ``(B, K, P)``; `half` belongs to the terms' outputs."""
    gram = _gram(terms.outputs.swapaxes(1, 2)) * _gram(terms.inputs)
    right = (terms.inputs[:, :, None] @ half)[:, :, 0]
    return _solve(gram, right.swapaxes(1, 2)).swapaxes(1, 2)


def _sweep(blocks: Array, terms: CPTerms, total: Array) -> tuple[CPTerms, Array]:
    """Update outputs, inputs and kernels in turn; return the terms and every block's error."""
    terms = CPTerms(terms.inputs, terms.kernels, update_outputs(blocks, terms))
    half = half_product(blocks, terms.outputs)
    terms = CPTerms(update_inputs(half, terms), terms.kernels, terms.outputs)
    terms = CPTerms(terms.inputs, update_kernels(half, terms), terms.outputs)
    # |W - W~|^2 = |W|^2 - 2 <W, W~> + |W~|^2, which needs no pass over the blocks.
    right = (terms.inputs[:, :, None] @ half)[:, :, 0]
    inner = np.sum(right * terms.kernels, axis=(1, 2), dtype=np.float64)
    gram = _gram(terms.inputs) * _gram(terms.kernels) * _gram(terms.outputs.swapaxes(1, 2))
    error = np.maximum(total - 2 * inner + gram.sum(axis=(1, 2), dtype=np.float64), 0.0)
    return _balanced(terms), error


def _solve(gram: Array, right: Array) -> Array:
    """Return X with ``X gram = right`` for every block, under the ridge."""
    size = gram.shape[-1]
    # Rounding of the products in a Gram matrix is no signal, and must not make it indefinite.
    share = max(RIDGE, 10 * float(np.finfo(gram.dtype).eps))
    ridge = share * np.trace(gram, axis1=1, axis2=2)[:, None, None] / size + np.finfo(float).tiny
    solution = np.linalg.solve(gram + ridge * np.eye(size), right.swapaxes(1, 2))
    return np.asarray(solution.swapaxes(1, 2).astype(right.dtype, copy=False))


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
        np.divide(mean, n, out=np.zeros_like(mean), where=n > np.finfo(n.dtype).tiny) for n in norms
    )
    return CPTerms(
        terms.inputs * a[..., None], terms.kernels * d[..., None], terms.outputs * b[:, None]
    )


def _extrapolated(old: CPTerms, new: CPTerms, momentum: Array) -> CPTerms:
    step = momentum[:, None, None].astype(old.inputs.dtype)
    # The outputs come first in a sweep, and from the other two alone.
    return CPTerms(
        new.inputs + step * (new.inputs - old.inputs),
        new.kernels + step * (new.kernels - old.kernels),
        new.outputs,
    )


def select(chosen: NDArray[np.bool_], one: CPTerms, other: CPTerms) -> CPTerms:
    """Take `one` for the chosen blocks and `other` for the rest."""
    pick = chosen[:, None, None]
    return CPTerms(
        np.where(pick, one.inputs, other.inputs),
        np.where(pick, one.kernels, other.kernels),
        np.where(pick, one.outputs, other.outputs),
    )
