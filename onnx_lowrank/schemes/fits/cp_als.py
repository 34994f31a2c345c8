"""CP of many blocks at once in the Frobenius norm: sums of K rank-1 terms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

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
    Lim 2008). Every sweep starts beyond where the last one ended, along its move and as far as in
    Nesterov's accelerated gradients (Mitchell, Ye and De Sterck 2020); where that raised a block's
    error, the block goes back to the best terms it had, and begins anew.

    It works in the precision of the blocks.
    """
    flat = blocks.reshape(*blocks.shape[:2], -1)
    total = np.asarray(np.sum(flat**2, axis=(1, 2), dtype=np.float64))
    best = now = _balanced(start.astype(blocks.dtype))
    best_error, checked = squared_errors(blocks, now), np.inf
    gains = np.zeros(len(blocks))  # sweeps since one failed
    for _ in range(sweeps):
        after, error = _sweep(blocks, now, total)
        improved, plain = error < best_error, gains == 0
        gains = np.where(improved, gains + 1, 0.0)
        ahead = _extrapolated(best, after, gains / (gains + 3))
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


@dataclass(frozen=True)
class Half:
    """Blocks multiplied by the outputs, for the updates of inputs and kernels.

    Attributes
    ----------
    products : ndarray, shape (B, K, C, P)
    gram : ndarray, shape (B, K, K)
        Gram matrix of the outputs.
    """

    products: Array
    gram: Array


def half_product(blocks: Array, outputs: Array) -> Half:
    """Return the blocks multiplied by the outputs."""
    flat = blocks.reshape(*blocks.shape[:2], -1)
    rows = outputs.swapaxes(1, 2)
    half = rows @ flat
    return Half(half.reshape(*half.shape[:2], *blocks.shape[2:]), _gram(rows))


def update_inputs(half: Half, terms: CPTerms) -> Array:
    """Return the least-squares inputs, ``(B, K, C)``; `half` belongs to the terms' outputs."""
    right = (half.products @ terms.kernels[..., None])[..., 0]
    return _solve(half.gram * _gram(terms.kernels), right.swapaxes(1, 2)).swapaxes(1, 2)


def update_kernels(half: Half, terms: CPTerms) -> tuple[Array, Array]:
    """Return the least-squares kernels, ``(B, K, P)``; `half` belongs to the terms' outputs.

    Also by how much the terms with them lower the squared error of every block, ``(B,)``.
    """
    gram = half.gram * _gram(terms.inputs)
    right = (terms.inputs[:, :, None] @ half.products)[:, :, 0]
    kernels = _solve(gram, right.swapaxes(1, 2)).swapaxes(1, 2)
    # |W|^2 - |W - W~|^2 = 2 <W, W~> - |W~|^2, which needs no pass over the blocks.
    inner = np.sum(right * kernels, axis=(1, 2), dtype=np.float64)
    own = np.sum(gram * _gram(kernels), axis=(1, 2), dtype=np.float64)
    return kernels, np.asarray(2 * inner - own, np.float64)


def _sweep(blocks: Array, terms: CPTerms, total: Array) -> tuple[CPTerms, Array]:
    """Update outputs, inputs and kernels in turn; return the terms and every block's error."""
    terms = CPTerms(terms.inputs, terms.kernels, update_outputs(blocks, terms))
    half = half_product(blocks, terms.outputs)
    terms = CPTerms(update_inputs(half, terms), terms.kernels, terms.outputs)
    kernels, gain = update_kernels(half, terms)
    terms = CPTerms(terms.inputs, kernels, terms.outputs)
    return _balanced(terms), np.maximum(total - gain, 0.0)


def _solve(gram: Array, right: Array) -> Array:
    """Return X with ``X gram = right`` for every block, under the ridge."""
    size = gram.shape[-1]
    # Rounding of the products in a Gram matrix is no signal, and must not make it indefinite.
    share = max(RIDGE, 10 * float(np.finfo(gram.dtype).eps))
    ridge = share * np.trace(gram, axis1=1, axis2=2) / size + np.finfo(gram.dtype).tiny
    return np.stack([_solved(*each) for each in zip(gram, ridge, right, strict=True)])


def _solved(gram: Array, ridge: float, right: Array) -> Array:
    """Return X with ``X (gram + ridge) = right`` of one block."""
    ridged = gram.copy()
    ridged[np.diag_indices(len(gram))] += ridge
    try:
        factor = linalg.cho_factor(ridged, check_finite=False)
        found = linalg.cho_solve(factor, right.T, check_finite=False).T
    except linalg.LinAlgError:  # rounding made it indefinite
        found = np.asarray(np.linalg.solve(ridged.astype(np.float64), right.T), np.float64).T
    return np.asarray(found, right.dtype)


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
