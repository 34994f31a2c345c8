"""What follows an input stage: free, of low rank, or a sum of outer products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy import linalg

from onnx_lowrank.schemes.fits.conjugate_gradients import Advance, conjugate_gradients
from onnx_lowrank.schemes.fits.covariance_problem import Reals, ridge_of, ridged
from onnx_lowrank.schemes.fits.reduced_rank import leading
from onnx_lowrank.schemes.fits.variable_projection import Compressed
from onnx_lowrank.types import Array

RIDGE = 1e-10  # relative, of channels that may be dependent
CLUSTER_SWEEPS = 10  # most over the clusters of a low-rank X, each given the others
CLUSTER_TOLERANCE = 1e-3  # relative fall of the squared error at which they end
KERNEL_STEPS = 1  # most conjugate gradients for the kernels of a sum of outer products
KERNEL_TOLERANCE = 1e-2  # fall of their residual at which they end


@dataclass(frozen=True, eq=False)
class Free:
    """X without structure, ``(F, J, P')``: a linear regression on the input stage's channels."""

    values: Array

    def improve(self, problem: Compressed) -> tuple[Free, float]:
        """Solve the normal equations."""
        found = problem.regression()
        error = problem.norm - 2 * float(np.vdot(found, problem.flat_cross))
        error += float(np.vdot(found @ problem.flat_moment, found))
        return Free(found.reshape(self.values.shape)), error

    def residual(self, image: Array, products: Reals) -> Reals:
        """Return all rows of what is left."""
        return np.asarray(image - self.times(products))

    def times(self, products: Reals) -> Reals:
        """Return all rows of ``X products``."""
        return _times(self.values.reshape(len(self.values), -1), products)

    def adjoint(self, rows: Reals) -> Array:
        """Return ``sum_p X_p^T R_p``."""
        return _by_tap(self.values, rows)

    def gram(self, over_taps: Array) -> Array:
        """Return ``sum_pq X_p^T X_q M_pq``."""
        weighed = self.values @ linalg.cholesky(over_taps, lower=True)
        return _by_tap(weighed, weighed)


@dataclass(frozen=True, eq=False)
class LowRank:
    """``X[:, g] = outputs[g] cores[g]`` for every cluster g of lines.

    Attributes
    ----------
    outputs : ndarray, shape (G, F, K2), orthonormal columns
    cores : ndarray, shape (G, K2, K1 P')
    taps : int
        Number of taps P'.
    """

    outputs: Array
    cores: Array
    taps: int

    @classmethod
    def empty(cls, groups: int, outputs: int, k1: int, k2: int, taps: int) -> LowRank:
        """Return an X of zeros, to be solved for."""
        return cls(np.zeros((groups, outputs, k2)), np.zeros((groups, k2, k1 * taps)), taps)

    def improve(self, problem: Compressed) -> tuple[LowRank, float]:
        """Solve for one cluster after the other, each by reduced-rank regression.

        With one cluster that is the optimum. Where there is nothing to begin with, the truncation
        of a regression on all clusters at once is: inputs of different clusters are correlated, so
        that the first one, alone, would take what belongs to the others.
        """
        groups, k2 = len(self.outputs), self.outputs.shape[2]
        moments = [problem.moment[g, :, g].astype(np.float64) for g in range(groups)]
        ridges = [ridge_of(moment, RIDGE) for moment in moments]
        roots = [
            linalg.cholesky(m + r * np.eye(len(m)), lower=True, check_finite=False)
            for m, r in zip(moments, ridges, strict=True)
        ]
        # From here on in coordinates in which the moment of every cluster is the identity.
        cross = [_solved(root, problem.cross[:, g].T).T for g, root in enumerate(roots)]
        mixed = {
            (g, h): _solved(roots[h], _solved(roots[g], problem.moment[g, :, h].astype(float)).T).T
            for g in range(groups)
            for h in range(groups)
            if g != h
        }
        if groups > 1 and not self.outputs.any():
            free = problem.regression().reshape(len(problem.cross), groups, -1)
            wanted = [free[:, g] @ root for g, root in enumerate(roots)]
            outputs = [leading(each @ each.T, k2) for each in wanted]
            cores = [basis.T @ each for basis, each in zip(outputs, wanted, strict=True)]
        else:
            outputs = list(self.outputs)
            cores = [core @ root for core, root in zip(self.cores, roots, strict=True)]
        error = np.inf
        for _ in range(CLUSTER_SWEEPS):
            before, error = error, problem.norm
            for g in range(groups):
                others = [outputs[h] @ (cores[h] @ mixed[h, g]) for h in range(groups) if h != g]
                wanted_here = sum(others, start=np.zeros(1)) * -1 + cross[g]
                outputs[g] = leading(wanted_here @ wanted_here.T, k2)
                cores[g] = outputs[g].T @ wanted_here
            for g in range(groups):
                error += float(np.vdot(cores[g], cores[g]))
                error -= 2 * float(np.vdot(outputs[g].T @ cross[g], cores[g]))
                for h in range(g):
                    seen = (outputs[g].T @ outputs[h]) @ (cores[h] @ mixed[h, g])
                    error += 2 * float(np.vdot(cores[g], seen))
            if groups == 1 or before - error <= CLUSTER_TOLERANCE * error:
                break
        plain = [
            _solved(root, core.T, transposed=True).T
            for root, core in zip(roots, cores, strict=True)
        ]
        # The ridges are no part of the metric.
        for core, ridge in zip(plain, ridges, strict=True):
            error -= ridge * float(np.vdot(core, core))
        return LowRank(np.stack(outputs), np.stack(plain), self.taps), error

    @property
    def values(self) -> Array:
        """X, shape (F, J, P')."""
        parts = self.outputs @ self.cores
        return parts.swapaxes(0, 1).reshape(parts.shape[1], -1, self.taps)

    @cached_property
    def _split(self) -> tuple[Array | None, Array]:
        """X as an orthonormal basis of its columns, if that is smaller, and ``(m, J P')``."""
        groups, size, k2 = self.outputs.shape
        joined = self.outputs.transpose(1, 0, 2).reshape(size, -1)
        basis, left = np.linalg.qr(joined) if groups * k2 < size else (None, joined)
        blocks = [left[:, g * k2 : (g + 1) * k2] @ self.cores[g] for g in range(groups)]
        return basis, np.concatenate(blocks, axis=1)

    def residual(self, image: Array, products: Reals) -> Reals:
        """Return what is left, in the basis of X's columns: X does not see the rest."""
        basis, _ = self._split
        return np.asarray((image if basis is None else basis.T @ image) - self.times(products))

    def times(self, products: Reals) -> Reals:
        """Return ``X products`` in the basis of X's columns."""
        return _times(self._split[1], products)

    def adjoint(self, rows: Reals) -> Array:
        """Return ``sum_p X_p^T R_p``."""
        _, x = self._split
        return _by_tap(x.reshape(len(x), -1, self.taps), rows)

    def gram(self, over_taps: Array) -> Array:
        """Return ``sum_pq X_p^T X_q M_pq``."""
        _, x = self._split
        weighed = x.reshape(len(x), -1, self.taps) @ linalg.cholesky(over_taps, lower=True)
        return _by_tap(weighed, weighed)


@dataclass(frozen=True, eq=False)
class Outer:
    """``X[f, j, p] = outputs[f, j] kernels[j, p]``: an outer product for each channel.

    Attributes
    ----------
    outputs : ndarray, shape (F, J)
    kernels : ndarray, shape (J, P')
    """

    outputs: Array
    kernels: Array

    @property
    def values(self) -> Array:
        """X, shape (F, J, P')."""
        return np.asarray(self.outputs[:, :, None] * self.kernels)

    def improve(self, problem: Compressed) -> tuple[Outer, float]:
        """Improve the kernels given the outputs, and solve for the outputs."""
        outer = _OuterProblem(problem)
        joined = outer.joined(self.kernels)
        kernels, joined = outer.better_kernels(self.outputs, self.kernels, joined)
        outputs = outer.best_outputs(kernels, joined)
        return Outer(outputs, kernels), outer.squared_error(outputs, kernels, joined)

    def residual(self, image: Array, products: Reals) -> Reals:
        """Return all rows of what is left."""
        return np.asarray(image - self.times(products))

    def times(self, products: Reals) -> Reals:
        """Return all rows of ``X products``."""
        return _times(self.outputs, _joined(self.kernels, products))

    def adjoint(self, rows: Reals) -> Array:
        """Return ``sum_p X_p^T R_p``."""
        back = _times(self.outputs.T, rows).reshape(-1, *rows.shape[1:])
        return np.asarray((back @ self.kernels[:, :, None].astype(back.dtype))[..., 0], np.float64)

    def gram(self, over_taps: Array) -> Array:
        """Return ``sum_pq X_p^T X_q M_pq``."""
        return np.asarray(
            (self.outputs.T @ self.outputs) * (self.kernels @ over_taps @ self.kernels.T)
        )


class _OuterProblem:
    """The problem of a sum of outer products, without the moment of all channels and taps.

    That moment, ``(J P', J P')``, is dearer than all products with it that are needed.
    """

    def __init__(self, problem: Compressed) -> None:
        self._problem = problem
        self._blocks = problem.blocks
        self._clusters = [
            (slice(g * len(rows), (g + 1) * len(rows)), rows.astype(self._blocks.dtype), lines)
            for g, (rows, lines) in enumerate(problem.clusters)
        ]

    def joined(self, kernels: Array) -> Reals:
        """Return ``sum_p d[j, p] A_j Sigma_p``, shape (J, C', P')."""
        size, taps, lines, _ = self._blocks.shape
        return _joined(kernels, self._blocks.reshape(size, taps, -1)).reshape(size, lines, taps)

    def unseen(self, outputs: Array, joined: Reals) -> Array:
        """Return ``W Sigma - X A Sigma``, shape (F, C', P')."""
        image = self._problem.image
        return np.asarray(image - _times(outputs, joined).reshape(image.shape))

    def best_outputs(self, kernels: Array, joined: Reals) -> Array:
        """Return the best outputs given the kernels, and what `joined` gives of them."""
        image = self._problem.image.astype(joined.dtype, copy=False)
        gram, right = np.empty((len(joined), len(joined))), np.empty((len(image), len(joined)))
        for here, rows, lines in self._clusters:
            pairs = _pairs(rows, kernels[here]).T
            gram[:, here] = joined[:, lines].reshape(len(joined), -1) @ pairs
            right[:, here] = image[:, lines].reshape(len(image), -1) @ pairs
        factor = linalg.cho_factor(ridged(gram, RIDGE), check_finite=False)
        return np.asarray(linalg.cho_solve(factor, right.T, check_finite=False).T)

    def better_kernels(self, outputs: Array, kernels: Array, joined: Reals) -> tuple[Array, Reals]:
        """Return kernels improved by conjugate gradients, preconditioned by the stand-in.

        And what `joined` gives of them, as it is given of those before.
        """
        gram = outputs.T @ outputs
        weights = gram.astype(joined.dtype)
        view, stage = self._problem.view, self._problem.stage.dense(self._problem.view.lines)
        left = linalg.cho_factor(ridged(gram * (stage @ view.over_lines @ stage.T)))
        over_taps = linalg.cho_factor(view.over_taps)

        unseen = self.unseen(outputs, joined).astype(joined.dtype, copy=False)
        residual = self._over_lines(outputs.T.astype(joined.dtype), unseen)

        def invert(slope: Array) -> Array:
            halfway = linalg.cho_solve(left, slope, check_finite=False)
            return np.asarray(linalg.cho_solve(over_taps, halfway.T, check_finite=False).T)

        def look(direction: Array) -> tuple[float, Advance]:
            change = self.joined(direction)
            moved = self._over_lines(weights, change)

            def advance(step: float) -> Array:
                nonlocal kernels, joined, residual
                kernels = kernels + step * direction
                joined = joined + joined.dtype.type(step) * change
                residual = np.asarray(residual - step * moved)
                return residual

            return float(np.vdot(direction, moved)), advance

        conjugate_gradients(residual, invert, look, steps=KERNEL_STEPS, tolerance=KERNEL_TOLERANCE)
        return kernels, joined

    def squared_error(self, outputs: Array, kernels: Array, joined: Reals) -> float:
        """Return ``|W - X A|^2``.

        As a product of the two differences, each small: a difference of squared norms in single
        precision would be off by as much as a step of a search gains.
        """
        rest = self._problem.view.target[self._problem.outputs]
        for here, rows, lines in self._clusters:
            fitted = _times(outputs[:, here], _pairs(rows, kernels[here]))
            rest[:, lines] -= fitted.reshape(len(rest), -1, rest.shape[2])
        return float(np.vdot(rest, self.unseen(outputs, joined)))

    def _over_lines(self, weights: Reals, rows: Reals) -> Array:
        """Return ``sum_c A[j, c] (weights R)[j, c, p]`` of rows R, ``(n, C', P')``, as (J, P')."""
        sums = np.empty((len(weights), rows.shape[2]))
        for here, own, lines in self._clusters:
            taken = rows[:, lines]
            mixed = weights[here] @ taken.reshape(len(taken), -1)
            sums[here] = np.matmul(own[:, None], mixed.reshape(len(own), *taken.shape[1:]))[:, 0]
        return sums


def _pairs(rows: Reals, kernels: Array) -> Reals:
    """Return the outer products of weights and kernels, ``(K, n P')``."""
    return np.asarray(rows[:, :, None] * kernels[:, None].astype(rows.dtype)).reshape(len(rows), -1)


def _joined(kernels: Array, products: Reals) -> Reals:
    """Return ``sum_p d[j, p] products[j, p]``, shape (J, n)."""
    return np.asarray(np.matmul(kernels[:, None].astype(products.dtype), products)[:, 0])


def _times(matrix: Array, products: Reals) -> Reals:
    flat = products.reshape(matrix.shape[1], -1)
    return np.asarray(matrix.astype(flat.dtype, copy=False) @ flat)


def _by_tap(left: Array, rows: Reals) -> Array:
    """Return ``sum_p left[:, :, p]^T rows[:, :, p]``."""
    total = np.zeros((left.shape[1], rows.shape[1]))
    for p in range(rows.shape[2]):
        total += left[:, :, p].T.astype(rows.dtype, copy=False) @ rows[:, :, p]
    return total


def _solved(root: Array, right: Array, *, transposed: bool = False) -> Array:
    """Return ``L^-1 right``, or ``L^-T right``, of a lower triangle L."""
    trans: Literal[0, 1] = 1 if transposed else 0
    solved = linalg.solve_triangular(root, right, lower=True, trans=trans, check_finite=False)
    return np.asarray(solved, np.float64)
