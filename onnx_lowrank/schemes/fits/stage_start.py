"""Where input stages start: principal directions of the weight under a separable stand-in."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from onnx_lowrank.schemes.fits import cp_als, cp_start
from onnx_lowrank.schemes.fits.covariance_problem import Indices, Reals, View, ridged
from onnx_lowrank.schemes.fits.reduced_rank import leading
from onnx_lowrank.schemes.fits.stand_in import StandIn
from onnx_lowrank.types import Array

# CP in the plain stand-in follows its few strong directions, and creeps: this much of the identity
# is added (of 0, 0.1, 1, 10 and nothing else the best on VGG-16, after the fit that follows).
CP_RIDGE = 10.0
CP_SWEEPS = 60
CP_SHARE = 0.7  # of the channels of both sides to which the start is confined


def leading_lines(view: View, rows: Array, rank: int, lines: Indices | None = None) -> Array:
    """Return the input channels that keep most of some rows, under the stand-in, ``(rank, n)``.

    Parameters
    ----------
    view : View
        The layer.
    rows : ndarray, shape (m, n, P')
        What is to be kept.
    rank : int
        Number of channels.
    lines : ndarray of int64, shape (n,), optional
        The lines that the rows are over; all if not given.
    """
    root = view.root(np.arange(view.lines) if lines is None else lines)
    basis = leading(_gram_of_lines(view, rows, root), rank).astype(np.float64)
    found = linalg.solve_triangular(root, basis, lower=True, trans=1, check_finite=False)
    return np.asarray(found.T)


def leading_target_lines(view: View, rank: int) -> Array:
    """Return `leading_lines` of the target, of which all ranks share a decomposition."""
    root = view.root(np.arange(view.lines))
    if "lines" not in view.known:
        gram = _gram_of_lines(view, view.target, root)
        view.known["lines"] = leading(gram, view.lines).astype(np.float64)
    basis = view.known["lines"][:, :rank]
    found = linalg.solve_triangular(root, basis, lower=True, trans=1, check_finite=False)
    return np.asarray(found.T)


def _gram_of_lines(view: View, rows: Array, root: Array) -> Reals:
    """Return the Gram matrix of lines under the stand-in, ``(n, n)``, of rows ``(m, n, P')``."""
    whitened = rows @ linalg.cholesky(view.over_taps, lower=True)
    flat: Reals = np.ascontiguousarray(whitened.swapaxes(1, 2), view.problem.working.dtype)
    flat = flat.reshape(-1, len(root)) @ root.astype(flat.dtype)
    return np.asarray(flat.T @ flat)


def leading_terms(view: View, outputs: Indices, clusters: Indices, rank: int) -> cp_als.CPTerms:
    """Return sums of outer products for the blocks of one cluster of outputs, ``(G, ...)``.

    Alternating least squares under the stand-in, within the principal subspaces of both sides of
    every block. All ranks of a layer that is one block share what they start from.
    """
    sides = round(CP_SHARE * len(outputs)), round(CP_SHARE * clusters.shape[1])
    confined = rank <= view.taps * min(sides)
    if len(clusters) == 1 and len(outputs) == len(view.target):
        if confined not in view.stand_ins:
            view.stand_ins[confined] = _stand_in(
                view, outputs, clusters, sides if confined else None
            )
        stand_in = view.stand_ins[confined]
    else:
        stand_in = _stand_in(view, outputs, clusters, sides if confined else None)
    terms = cp_als.als(stand_in.cores, stand_in.start.leading(rank), sweeps=CP_SWEEPS)
    terms = terms.astype(np.dtype(np.float64))
    return cp_als.CPTerms(
        np.stack([x @ back for x, back in zip(terms.inputs, stand_in.inputs, strict=True)]),
        terms.kernels @ stand_in.kernels,
        np.stack([back @ x for x, back in zip(terms.outputs, stand_in.outputs, strict=True)]),
    )


def _stand_in(
    view: View, outputs: Indices, clusters: Indices, sides: tuple[int, int] | None
) -> StandIn:
    taps_root = linalg.cholesky(ridged(view.over_taps, CP_RIDGE), lower=True)
    cores, lefts, rights = [], [], []
    for lines in clusters:
        over = view.over_lines[np.ix_(lines, lines)]
        root = linalg.cholesky(ridged(over, CP_RIDGE), lower=True, check_finite=False)
        block = view.target[np.ix_(outputs, lines)] @ taps_root  # (F, C, P')
        block = root.T @ block
        if sides is None:
            core, left, right = block, np.eye(len(outputs)), np.eye(len(lines))
        else:
            core, left, right = _confined(block, *sides)
        cores.append(core)
        lefts.append(left)
        rights.append(linalg.solve_triangular(root, right, lower=True, trans=1).T)
    stacked = np.stack(cores).astype(view.problem.working.dtype, copy=False)
    back = linalg.solve_triangular(taps_root, np.eye(view.taps), lower=True, trans=1).T
    return StandIn(stacked, cp_start.SpatialSVD.of(stacked), lefts, rights, back)


def _confined(block: Array, k2: int, k1: int) -> tuple[Array, Array, Array]:
    """Return a block's core in its principal subspaces, and their bases, of outputs and inputs."""
    f, c, p = block.shape
    flat = block.reshape(f, -1)
    left = leading(flat @ flat.T, k2)
    half = (left.T @ flat).reshape(k2, c, p)
    sides = half.swapaxes(0, 1).reshape(c, -1)
    right = leading(sides @ sides.T, k1)
    return right.T @ half, left, right
