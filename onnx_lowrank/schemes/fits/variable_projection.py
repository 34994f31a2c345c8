"""One algorithm for every scheme in the covariance metric: an input stage, and what follows it.

Of the outputs of one cluster every scheme makes ``V[f, c, p] = sum_j X[f, j, p] A[j, c]``: an input
stage A sums over the lines c of a patch, at each tap p alike, and X is free (spatial,
monochromatic), of low rank (Tucker-2 and its blocks) or a sum of outer products (CP and its
blocks). Given A, the problem for X is one of the size of the ranks, with the moment
``K = A Sigma A^T``, and is solved there. What is left is a function of A alone (variable
projection; Golub and Pereyra 1973), lowered by nonlinear conjugate gradients: a step costs one
product of J rows with the metric. A stand-in of the metric that separates lines from taps
preconditions them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from typing_extensions import Self

from onnx_lowrank.schemes.fits.covariance_problem import SINGLE_FROM, Reals, View, ridged
from onnx_lowrank.schemes.fits.input_stage import InputStage
from onnx_lowrank.types import Array

Indices = NDArray[np.int64]

REGRESSION_RIDGE = 1e-10  # relative, of channels that may be dependent
SEARCH_WORK = 25_000_000_000  # multiply-adds in products with the metric, in one search
LEAST_STEPS, MOST_STEPS = 2, 40
# Relative fall of the squared error in a step at which a search has converged: of patches from
# `SINGLE_FROM` entries, whose steps take long, and of smaller ones.
TOLERANCE, CLOSE_TOLERANCE = 2e-3, 5e-4


@dataclass(frozen=True, eq=False)
class Compressed:
    """The problem of what follows an input stage, for the outputs of one cluster.

    Attributes
    ----------
    view : View
        The layer.
    outputs : ndarray of int64, shape (F,)
        The outputs.
    stage : InputStage
        A.
    products : ndarray, shape (J, P', N)
        ``A Sigma``.
    """

    view: View
    outputs: Indices
    stage: InputStage
    products: Reals

    @cached_property
    def blocks(self) -> Reals:
        """The products by lines and taps, shape (J, P', C', P')."""
        size, taps, length = self.products.shape
        split = self.view.split(self.products.reshape(size * taps, length))
        return split.reshape(size, taps, -1, taps)

    @cached_property
    def norm(self) -> float:
        """``|W|^2``."""
        return float(np.vdot(self.view.target[self.outputs], self.image))

    @cached_property
    def moment(self) -> Reals:
        """``A Sigma A^T``: second moment of the input stage's channels, (G, K P', G, K P').

        In the precision of the products.
        """
        (groups, rank, _), taps = self.stage.weights.shape, self.view.taps
        size = groups * rank * taps
        blocks = self.blocks.reshape(size, -1, taps)
        moment = np.empty((size, groups, rank, taps), blocks.dtype)
        for group, (rows, lines) in enumerate(self.clusters):
            columns = rows.T.astype(blocks.dtype, copy=False)
            for tap in range(taps):
                moment[:, group, :, tap] = np.ascontiguousarray(blocks[:, lines, tap]) @ columns
        return moment.reshape(groups, rank * taps, groups, rank * taps)

    @cached_property
    def cross(self) -> Array:
        """``W Sigma A^T``: moment of the wanted outputs and of these channels, (F, G, K P')."""
        (groups, rank, _), taps = self.stage.weights.shape, self.view.taps
        cross = np.empty((len(self.outputs), groups, rank, taps))
        for group, (rows, lines) in enumerate(self.clusters):
            for tap in range(taps):
                taken = np.ascontiguousarray(self.image[:, lines, tap])
                cross[:, group, :, tap] = taken @ rows.T
        return cross.reshape(len(self.outputs), groups, -1)

    @property
    def clusters(self) -> Iterator[tuple[Array, slice | Indices]]:
        """Weights and lines of every cluster."""
        # A slice is copied faster than a selection.
        ordered = np.array_equal(self.stage.clusters[0], np.arange(self.view.lines))
        for rows, lines in zip(self.stage.weights, self.stage.clusters, strict=True):
            yield rows, slice(None) if ordered else lines

    @cached_property
    def image(self) -> Array:
        """``W Sigma`` of the outputs, shape (F, C', P')."""
        image = self.view.image
        whole = np.array_equal(self.outputs, np.arange(len(image)))
        return image if whole else image[self.outputs]

    @property
    def flat_moment(self) -> Array:
        """The moment as a matrix, ``(J P', J P')``, in double precision."""
        size = self.moment.shape[0] * self.moment.shape[1]
        return self.moment.reshape(size, size).astype(np.float64, copy=False)

    @property
    def flat_cross(self) -> Array:
        """The cross moment as a matrix, ``(F, J P')``."""
        return self.cross.reshape(len(self.cross), -1)

    def regression(self) -> Array:
        """Return the best X without structure, ``(F, J P')``."""
        factor = linalg.cho_factor(ridged(self.flat_moment, REGRESSION_RIDGE), check_finite=False)
        return np.asarray(linalg.cho_solve(factor, self.flat_cross.T, check_finite=False).T)


class OutputStage(Protocol):
    """What follows an input stage: X, of some structure."""

    @property
    def values(self) -> Array:
        """X without its structure, shape (F, J, P')."""
        ...

    def improve(self, problem: Compressed) -> tuple[Self, float]:
        """Return X solved anew, and ``|W - X A|^2``; no more than that of this X."""
        ...

    def residual(self, image: Array, products: Reals) -> Reals:
        """Return rows R that span ``W Sigma - X A Sigma`` as far as X sees it.

        Parameters
        ----------
        image : ndarray, shape (F, N)
            ``W Sigma``.
        products : ndarray, shape (J, P', N)
            ``A Sigma``.
        """
        ...

    def times(self, products: Reals) -> Reals:
        """Return X applied to products with the metric, as rows like those of `residual`."""
        ...

    def adjoint(self, rows: Reals) -> Array:
        """Return ``sum_p X[:, j, p]^T R[:, c, p]``, shape (J, C'), of rows ``(m, C', P')``."""
        ...

    def gram(self, over_taps: Array) -> Array:
        """Return ``sum_pq X_p^T X_q M_pq``, shape (J, J), of a matrix over taps."""
        ...


@dataclass(frozen=True, eq=False)
class Part:
    """The outputs of one cluster: where they are, their input stage and what follows it."""

    outputs: Indices
    stage: InputStage
    output_stage: OutputStage


def fit_part(view: View, part: Part, *, steps: int | None = None) -> tuple[Part, float]:
    """Lower the error of the outputs of one cluster.

    Parameters
    ----------
    view : View
        The layer.
    part : Part
        The start; what follows its input stage need not be solved for.
    steps : int, optional
        Most steps of conjugate gradients; what `SEARCH_WORK` allows if not given.

    Returns
    -------
    part : Part
        With the best X for its input stage.
    squared_error : float
        In double precision.
    """
    if steps is None:
        groups, rank, _ = part.stage.weights.shape
        work = groups * rank * view.order.size**2
        steps = min(max(SEARCH_WORK // work, LEAST_STEPS), MOST_STEPS)
    problem, output_stage, error = _search(view, part, steps)
    found = Part(part.outputs, problem.stage, output_stage)
    return found, squared_error(view, found) if view.problem.single else error


def squared_error(view: View, part: Part) -> float:
    """Return ``|W - X A|^2`` of the outputs of one cluster, in double precision."""
    values = part.output_stage.values
    rest = view.target[part.outputs]
    size = part.stage.weights.shape[1]
    for group, (rows, lines) in enumerate(
        zip(part.stage.weights, part.stage.clusters, strict=True)
    ):
        mine = values[:, group * size : (group + 1) * size]
        for tap in range(view.taps):
            rest[:, lines, tap] -= mine[:, :, tap] @ rows
    return view.problem.squared_norm(view.joined(rest))


def _search(view: View, part: Part, steps: int) -> tuple[Compressed, OutputStage, float]:
    stage = part.stage
    products = view.contract(stage)
    problem = Compressed(view, part.outputs, stage, products)
    output_stage, error = part.output_stage.improve(problem)
    direction, previous = np.zeros_like(stage.weights), np.zeros_like(stage.weights)
    product, stretch = np.inf, 1.5
    tolerance = TOLERANCE if view.order.size >= SINGLE_FROM else CLOSE_TOLERANCE
    for _ in range(steps):
        slope = gradient(view, part.outputs, stage, products, output_stage)
        z = preconditioner(view, stage, output_stage)(slope)
        # Polak and Ribiere's choice, restarted where it would not descend.
        turn = max(float(np.vdot(slope - previous, z)) / product, 0.0)
        product, previous = float(np.vdot(slope, z)), slope
        direction = z + turn * direction
        if np.vdot(slope, direction) <= 0:
            turn, direction = 0.0, z
        descent = float(np.vdot(slope, direction))
        change = view.contract(InputStage(stage.clusters, direction))
        rows = view.split(output_stage.times(change))
        bend = float(np.vdot(stage.gather(output_stage.adjoint(rows)), direction))
        if descent <= 0 or bend <= 0:
            break
        before = error
        plain = descent / bend  # the best with X held fixed; X follows, so that more is better
        step = stretch * plain
        for _ in range(3):
            shifted = products.dtype.type(step) * change
            shifted += products
            moved = Compressed(view, part.outputs, stage.moved(direction, step), shifted)
            solved, after = output_stage.improve(moved)
            # The parabola through the error here, its slope, and the error there.
            rise = (after - error + 2 * descent * step) / step**2
            best = descent / rise if rise > 0 else 2 * step
            if after < error:
                break
            step = min(best, step / 2)
        else:
            if turn == 0:
                break
            product = np.inf  # once more, straight down
            continue
        stretch = min(max(best / plain, 1.0), 4.0)
        problem, output_stage, error = moved, solved, after
        stage, products = problem.stage, problem.products
        # What a step of the best length gains: one too long says nothing of those that follow.
        gained = max(before - error, descent * best)
        if gained <= tolerance * before or error <= 1e-24 * view.problem.norm:
            break
    return problem, output_stage, error


def gradient(
    view: View, outputs: Indices, stage: InputStage, products: Reals, output_stage: OutputStage
) -> Array:
    """Return minus half the gradient of the squared error by the stage's weights."""
    image = view.problem.image[outputs]
    return stage.gather(output_stage.adjoint(view.split(output_stage.residual(image, products))))


def preconditioner(
    view: View, stage: InputStage, output_stage: OutputStage
) -> Callable[[Array], Array]:
    """Return the inverse of the second derivative by the stage's weights, under the stand-in."""
    rank = stage.weights.shape[1]
    ranks = output_stage.gram(view.over_taps)
    factors = []
    for group, lines in enumerate(stage.clusters):
        block = slice(group * rank, (group + 1) * rank)
        left = linalg.cho_factor(ridged(ranks[block, block]), check_finite=False)
        factors.append((left, (view.root(lines), True)))

    def invert(slope: Array) -> Array:
        return np.stack(
            [
                linalg.cho_solve(right, linalg.cho_solve(left, block).T).T
                for block, (left, right) in zip(slope, factors, strict=True)
            ]
        )

    return invert
