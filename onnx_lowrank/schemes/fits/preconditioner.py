"""A separable stand-in for a metric, under which a half-step has a closed inverse.

Inputs are correlated from channel to channel and from tap to tap. Taking the metric for the
Kronecker product of a matrix over channels and one over taps, the normal equations of every array
fall apart into one small matrix per index. This steers the conjugate gradients; it does not change
what they converge to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.metrics.covariance import Covariance
from onnx_lowrank.metrics.mahalanobis import Mahalanobis
from onnx_lowrank.schemes.structure import Multilinear
from onnx_lowrank.types import Array

RIDGE = 1e-8  # relative: terms may be dependent, and taps always zero


@dataclass(frozen=True, eq=False)
class Surrogate:
    """Matrices over the indices of a multilinear expression that a metric weighs.

    Attributes
    ----------
    matrices : dict of str to ndarray
        ``"c"``: over channels, ``(..., n, n)`` with the block indices of the expression in front;
        ``"p"``: over taps, ``(P, P)``. Indices that are not there count alike.
    """

    matrices: dict[str, Array]

    @classmethod
    def of(cls, metric: Metric, now: Multilinear, shape: tuple[int, ...]) -> Surrogate:
        """Return the stand-in for `metric` on weights of `shape`, ``(F, C, *kernel)``."""
        channels, taps = shape[1], int(np.prod(shape[2:]))
        if isinstance(metric, Covariance) and len(metric.moment) == 1:
            moment = metric.moment[0].reshape(channels, taps, channels, taps)
            over_channels = np.einsum("cpdp->cd", moment) / taps
            over_taps = np.einsum("cpcq->pq", moment) / channels
        elif isinstance(metric, Mahalanobis):
            squares = (metric.alpha**2).reshape(shape[0], channels, taps)
            over_channels = np.diag(squares.mean(axis=(0, 2)))
            over_taps = np.diag(squares.mean(axis=(0, 1)))
        else:
            return cls({})
        # Each carries the scale of the metric; together they should carry it once.
        over_taps = over_taps / (float(np.trace(over_taps)) / taps or 1.0)
        if (chosen := now.channels) is not None:
            over_channels = over_channels[chosen[..., :, None], chosen[..., None, :]]
        return cls({"c": _ridged(over_channels), "p": _ridged(over_taps)})

    def weigh(self, subscripts: str, array: Array, *, lead: int) -> Array:
        """Multiply an array, `lead` block indices in front, by the matrices of its indices."""
        for letter, matrix in self.matrices.items():
            if letter in subscripts:
                axis = subscripts.index(letter)
                rows, restore = _rows(array, axis, lead)
                array = restore(rows @ matrix)
        return array


def preconditioner(now: Multilinear, index: int, surrogate: Surrogate) -> Callable[[Array], Array]:
    """Return the inverse of the normal equations of one array under the stand-in."""
    own, blocks = now.subscripts[index], now.blocks
    grams = {**_rank_grams(now, index, surrogate), **surrogate.matrices}

    def invert(gradient: Array) -> Array:
        for letter, gram in grams.items():
            if letter in own:
                gradient = _solve_along(gradient, own.index(letter), gram, lead=len(blocks))
        return gradient

    return invert


def _rank_grams(now: Multilinear, index: int, surrogate: Surrogate) -> dict[str, Array]:
    """Return, for every rank of an array, the Gram matrix of what it multiplies.

    The other arrays fall into parts that no rank links but those of this array; the Gram matrix of
    a rank is the product, entry by entry, of those of the parts that it is in.
    """
    *inputs, result = now.subscripts
    own = [letter for letter in inputs[index] if letter not in result]
    others = [i for i in range(len(inputs)) if i != index]
    parts = _linked(inputs, others, set("".join(inputs)) - set(result) - set(own))
    grams: dict[str, Array] = {}
    for rank in own:
        for part in parts:
            if any(rank in inputs[i] for i in part):
                term = _gram(now, part, rank, own, surrogate)
                grams[rank] = grams[rank] * term if rank in grams else term
    return {rank: _ridged(gram) for rank, gram in grams.items()}


def _linked(inputs: list[str], members: list[int], ranks: set[str]) -> list[list[int]]:
    """Return arrays in parts: two of one part are linked by ranks, those of two parts are not."""
    parts: list[list[int]] = []
    for i in members:
        linked = [p for p in parts if any(set(inputs[i]) & set(inputs[j]) & ranks for j in p)]
        parts = [p for p in parts if p not in linked] + [[*(j for p in linked for j in p), i]]
    return parts


def _gram(
    now: Multilinear, part: list[int], rank: str, own: list[str], surrogate: Surrogate
) -> Array:
    """Contract arrays with themselves over all but one rank and the blocks."""
    *inputs, result = now.subscripts
    # Ranks within the part are summed in each copy; this array's other ranks, over both at once.
    once = set(result) | set(own) - {rank}
    second = [
        "".join(letter if letter in once else letter.upper() for letter in inputs[i]) for i in part
    ]
    weighed = [surrogate.weigh(inputs[i], now.arrays[i], lead=len(now.blocks)) for i in part]
    return np.asarray(
        np.einsum(
            f"{','.join([*(inputs[i] for i in part), *second])}->{now.blocks}{rank}{rank.upper()}",
            *weighed,
            *(now.arrays[i] for i in part),
            optimize=True,
        )
    )


def _ridged(matrix: Array) -> Array:
    size = matrix.shape[-1]
    trace = np.trace(matrix, axis1=-2, axis2=-1)[..., None, None]
    return np.asarray(matrix + (RIDGE * trace / size + np.finfo(float).tiny) * np.eye(size))


def _rows(array: Array, axis: int, lead: int) -> tuple[Array, Callable[[Array], Array]]:
    """Return an array as rows along one axis behind its block axes, and the way back."""
    moved = np.moveaxis(array, axis, -1)
    rows = moved.reshape(*moved.shape[:lead], -1, moved.shape[-1])
    return rows, lambda result: np.moveaxis(result.reshape(moved.shape), -1, axis)


def _solve_along(array: Array, axis: int, matrix: Array, *, lead: int) -> Array:
    """Multiply an array along one axis by the inverse of a symmetric matrix of every block."""
    rows, restore = _rows(array, axis, lead)
    if matrix.ndim == 2:  # one factorisation for all blocks
        flat = rows.reshape(-1, rows.shape[-1])
        return restore(np.asarray(np.linalg.solve(matrix, flat.T), np.float64).T)
    matrix = np.broadcast_to(matrix, (*rows.shape[:-2], *matrix.shape[-2:]))
    solved = np.asarray(np.linalg.solve(matrix, rows.swapaxes(-1, -2)), np.float64)
    return restore(solved.swapaxes(-1, -2))
