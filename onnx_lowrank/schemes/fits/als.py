"""Alternating least squares over the factors themselves, in any metric.

Transforming the weight by a metric, decomposing and transforming back would destroy the structure:
after an elementwise or a full transform a rank-1 block is no longer of rank 1. Here each array of
the structure is updated in turn by a linear least-squares problem in the metric; the result has the
structure exactly.
"""

from __future__ import annotations

import numpy as np

from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.schemes.base import Factors, Weight
from onnx_lowrank.schemes.fits.conjugate_gradients import Advance, conjugate_gradients
from onnx_lowrank.schemes.fits.preconditioner import Surrogate, preconditioner
from onnx_lowrank.schemes.structure import Multilinear
from onnx_lowrank.types import Array

SWEEP_WORK = 30_000_000  # weights times sweeps in one fit
LEAST_SWEEPS, MOST_SWEEPS = 12, 40
MAX_STEPS = 8  # of conjugate gradients in one half-step
TOLERANCE = 2e-4  # relative fall of the squared error in a sweep at which a fit has converged
STEP_TOLERANCE = 1e-2  # fall of the residual at which a half-step is solved well enough


def refine(
    factors: Factors,
    weight: Weight,
    metric: Metric,
    *,
    sweeps: int | None = None,
    steps: int = MAX_STEPS,
    tolerance: float = STEP_TOLERANCE,
) -> Factors:
    """Lower ``|W - W~|`` in a metric over all factors in turn; no half-step raises it.

    A half-step solves the normal equations ``J^T M J x = J^T M W`` of one array by conjugate
    gradients from the present value, preconditioned by the Gram matrices of its ranks: J and its
    adjoint are contractions with the other arrays, M is one product with the metric. No matrix of
    the size of the layer is formed. (Weighted alternating least squares: Kalle et al.,
    arXiv 2511.04494, for Tucker-2 and CP.)

    Parameters
    ----------
    factors : Factors
        The start; not changed.
    weight : ndarray, shape (F, C / group, *kernel), float64
        What to approximate.
    metric : Metric
        The inner product.
    sweeps : int, optional
        Most sweeps over all arrays; what `SWEEP_WORK` allows if not given.
    steps : int
        Most steps of conjugate gradients in a half-step.
    tolerance : float
        Relative residual at which a half-step stops.

    Returns
    -------
    Factors
        Of the same structure and ranks; `factors` itself if it is no multilinear expression.
    """
    if sweeps is None:
        sweeps = min(max(SWEEP_WORK // weight.size, LEAST_SWEEPS), MOST_SWEEPS)
    now = factors.multilinear()
    if now is None:
        return factors
    surrogate = Surrogate.of(metric, now, weight.shape)
    residual = weight - now.dense()
    moved = metric.apply(residual)
    error = float(np.vdot(residual, moved))
    floor = np.finfo(float).eps * metric.squared_norm(weight)
    for _ in range(sweeps):
        before = error
        for index in reversed(range(len(now.arrays))):
            now, residual, moved = _half_step(
                now, index, residual, moved, metric, surrogate, steps=steps, tolerance=tolerance
            )
        error = float(np.vdot(residual, moved))
        if before - error <= TOLERANCE * before or error <= floor:
            break
    return now.rebuild(now.arrays)


def _half_step(
    now: Multilinear,
    index: int,
    residual: Weight,
    moved: Weight,
    metric: Metric,
    surrogate: Surrogate,
    *,
    steps: int,
    tolerance: float,
) -> tuple[Multilinear, Weight, Weight]:
    """Improve one array; return the expression, the residual, and the metric's product with it.

    The conjugate gradients carry the residual of the weight along, so that a step costs one
    contraction, one product with the metric, and one adjoint.
    """
    x = now.arrays[index]

    def look(direction: Array) -> tuple[float, Advance]:
        change = now.with_array(index, direction).dense()
        change_moved = metric.apply(change)

        def advance(step: float) -> Array:
            nonlocal x, residual, moved
            x = x + step * direction
            residual = residual - step * change
            moved = moved - step * change_moved
            return now.adjoint(index, moved)

        return float(np.vdot(change, change_moved)), advance

    invert = preconditioner(now, index, surrogate)
    gradient = now.adjoint(index, moved)
    conjugate_gradients(gradient, invert, look, steps=steps, tolerance=tolerance)
    return now.with_array(index, x), residual, moved
