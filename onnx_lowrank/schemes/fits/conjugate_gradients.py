"""Preconditioned conjugate gradients for the least-squares problems of the fits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnx_lowrank.types import Array

Advance = Callable[[float], Array]


def conjugate_gradients(
    gradient: Array,
    invert: Callable[[Array], Array],
    look: Callable[[Array], tuple[float, Advance]],
    *,
    steps: int,
    tolerance: float,
) -> None:
    """Lower a quadratic form step by step (Hestenes and Stiefel 1952), preconditioned.

    The caller holds what moves, and may carry along what is dear to compute anew, such as the
    residual of a whole weight; `scipy.sparse.linalg.cg` has no place for that, nor a stop by the
    preconditioned gradient.

    Parameters
    ----------
    gradient : ndarray
        The negative gradient at the start.
    invert : callable
        Applies the preconditioner, symmetric and positive definite, to a negative gradient.
    look : callable
        Returns of a direction the curvature along it, and a function that goes so many times the
        direction and returns the negative gradient there.
    steps : int
        Most steps.
    tolerance : float
        The end is where the norm of the gradient, in the preconditioner, has fallen to this share.
    """
    direction = invert(gradient)
    product = float(np.vdot(gradient, direction))
    first = product
    for _ in range(steps):
        if product <= tolerance**2 * first or product <= 0:
            return
        curvature, advance = look(direction)
        if curvature <= 0:
            return
        gradient = advance(product / curvature)
        z = invert(gradient)
        following = float(np.vdot(gradient, z))
        direction = z + following / product * direction
        product = following
