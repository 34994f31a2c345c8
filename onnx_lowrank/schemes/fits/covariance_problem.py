"""What all fits of one layer in the covariance metric share: computed once, used by every rank."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from onnx_lowrank.metrics.covariance import Covariance, RowCovariance
from onnx_lowrank.schemes.fits.cp_start import SpatialSVD
from onnx_lowrank.schemes.fits.input_stage import InputStage
from onnx_lowrank.schemes.fits.reduced_rank import (
    leading,
    principal,
    principal_of_tall,
    reduced_rank,
)
from onnx_lowrank.schemes.fits.stand_in import StandIn
from onnx_lowrank.schemes.structure import Factors, Fit, relative_error
from onnx_lowrank.types import Array

Reals = NDArray[Any]  # in double precision, or in single where a search works so
Indices = NDArray[np.int64]

SINGLE_FROM = 1024  # entries of a patch from which searches work in single precision
STRIPES = 8  # of a moment, of whose diagonal blocks both halves are multiplied by
LEAST_OUTPUT = 1e-12  # relative: an output that counts for nothing can still be scaled back


@dataclass(frozen=True, eq=False)
class LayerProblem:
    """The least-squares problem ``|W - V|`` over weights V of one layer, in a covariance metric.

    Weights of the outputs are taken into the target: with ``d_f`` the weight of output f, the
    rows of W are multiplied by ``sqrt(d_f)``, and those of V divided by it at the end.

    Attributes
    ----------
    weight : ndarray, shape (F, C / group, *kernel), float64
        W as it is.
    metric : Covariance or RowCovariance
        The metric.
    group : int
        Groups of the layer.
    """

    weight: Array
    metric: Covariance | RowCovariance
    group: int = 1

    @property
    def kernel(self) -> tuple[int, ...]:
        """The kernel."""
        return self.weight.shape[2:]

    @cached_property
    def scale(self) -> Array:
        """Square roots of the weights of the outputs, shape (F,)."""
        outputs = self.metric.outputs
        if outputs is None or not outputs.any():
            return np.ones(len(self.weight))
        return np.asarray(np.sqrt(np.maximum(outputs, LEAST_OUTPUT * outputs.max())))

    @cached_property
    def target(self) -> Array:
        """The scaled weight, shape (F, N), N entries of a patch, channel first."""
        return self.scale[:, None] * self.weight.reshape(len(self.weight), -1)

    @cached_property
    def image(self) -> Array:
        """``W Sigma``, shape (F, N): the one product with the metric that all fits need."""
        plain = replace(self.metric, outputs=None)
        image = plain.apply(self.target.reshape(self.weight.shape))
        return np.asarray(image.reshape(self.target.shape))

    @cached_property
    def norm(self) -> float:
        """``|W|^2``."""
        return float(np.vdot(self.target, self.image))

    @cached_property
    def responses(self) -> Array:
        """``W Sigma W^T`` of every group, shape (group, F / group, F / group)."""
        image, target = (x.reshape(self.group, -1, x.shape[1]) for x in (self.image, self.target))
        return np.asarray(image @ target.swapaxes(1, 2))

    @cached_property
    def directions(self) -> tuple[tuple[Array, Array], ...]:
        """Energies and principal directions of the responses of every group, the strongest first.

        Shapes (n,) and (F / group, n), n the smaller side of the group's matrix. All ranks of all
        schemes share them.
        """
        parts = self.target.reshape(self.group, -1, self.target.shape[1])
        if parts.shape[1] <= parts.shape[2]:
            return tuple(principal(moment) for moment in self.responses)
        return tuple(
            principal_of_tall(part, moment)
            for part, moment in zip(parts, self._moments, strict=True)
        )

    def leading_outputs(self, rank: int) -> Array:
        """Return the leading principal directions of a layer without groups, ``(F, rank)``."""
        vectors = self.directions[0][1]
        if rank <= vectors.shape[1]:
            return vectors[:, :rank]
        return leading(self.responses[0], rank)

    @cached_property
    def spatial_svd(self) -> SpatialSVD:
        """The weight of a layer without groups by its principal spatial filters."""
        return SpatialSVD.of(self.weight.reshape(1, *self.weight.shape[:2], -1))

    @cached_property
    def plain_directions(self) -> tuple[Array, ...]:
        """Left singular vectors of the weight of every group, the strongest first."""
        parts = self.weight.reshape(self.group, -1, self.target.shape[1])
        return tuple(reduced_rank(part, min(part.shape))[0] for part in parts)

    @property
    def _moments(self) -> Array:
        """Sigma of every group, shape (group, N, N)."""
        if isinstance(self.metric, Covariance):
            return self.metric.moment
        rows = self.metric.rows
        return (rows.T @ rows + self.metric.ridge * np.eye(rows.shape[1]))[None]

    @cached_property
    def sigma(self) -> Array:
        """The second moment of the patches of a layer without groups, shape (N, N)."""
        assert isinstance(self.metric, Covariance), "schemes with a kernel have dense moments"
        return np.asarray(self.metric.moment[0])

    @property
    def single(self) -> bool:
        """Whether searches work in single precision: where their products are what takes time."""
        return len(self.sigma) >= SINGLE_FROM

    @cached_property
    def working(self) -> Reals:
        """Sigma as searches use it."""
        return self.sigma.astype(np.float32) if self.single else self.sigma

    @cached_property
    def clusters(self) -> dict[tuple[tuple[int, int], ...], tuple[Indices, Indices]]:
        """Clusters of channels found so far: see `bicluster`."""
        return {}

    @cached_property
    def channels(self) -> View:
        """The patch as input channels and taps."""
        taps = int(np.prod(self.kernel))
        return View(self, np.arange(len(self.sigma)).reshape(-1, taps))

    @cached_property
    def columns(self) -> View:
        """The patch as pairs of a channel and a row of the kernel, and its columns."""
        return View(self, np.arange(len(self.sigma)).reshape(-1, self.kernel[1]))

    @cached_property
    def rows(self) -> View:
        """The patch as pairs of a channel and a column of the kernel, and its rows."""
        index = np.arange(len(self.sigma)).reshape(-1, *self.kernel)
        return View(self, index.swapaxes(1, 2).reshape(-1, self.kernel[0]))

    def better(self, start: Factors, fitted: tuple[Factors, float]) -> Fit:
        """Return a fit, or the start where that is better, with the errors of both."""
        start_error, (factors, error) = self.error(start.reconstruct()), fitted
        if error <= start_error:
            return Fit(factors, start_error, error)
        return Fit(start, start_error, start_error)

    def error(self, approximation: Array) -> float:
        """Return ``|W - V| / |W|`` of a weight V, ``(F, C, *kernel)``, to single precision."""
        rest = self.scale[:, None] * approximation.reshape(self.target.shape) - self.target
        return relative_error(quadratic_form(rest, self.working), self.norm)

    def squared_norm(self, rows: Array) -> float:
        """Return ``|V|^2`` of a scaled weight V, ``(n, N)``, in double precision."""
        return quadratic_form(rows, self.sigma)


@dataclass(frozen=True, eq=False)
class View:
    """A patch with its entries as pairs of a line and a tap.

    A line is what the first stage of a scheme sums over, a tap what it keeps apart: input channels
    and taps of the kernel, or, for separable kernels, channels by rows and columns.

    Attributes
    ----------
    problem : LayerProblem
        The layer.
    order : ndarray of int64, shape (C', P')
        Where in a patch the entry of a line and a tap is.
    roots, known, stand_ins : dict
        What was computed of it, to be looked up: see `root` and `stage_start`.
    """

    problem: LayerProblem
    order: Indices
    roots: dict[bytes, Array] = field(default_factory=dict)
    known: dict[str, Array] = field(default_factory=dict)
    stand_ins: dict[bool, StandIn] = field(default_factory=dict)

    @property
    def lines(self) -> int:
        """Number of lines C'."""
        return int(self.order.shape[0])

    @property
    def taps(self) -> int:
        """Number of taps P'."""
        return int(self.order.shape[1])

    @cached_property
    def native(self) -> bool:
        """Whether the entries are in the order of the patch."""
        return bool(np.all(np.diff(self.order.ravel()) == 1))

    def split(self, matrix: Reals) -> Reals:
        """Return rows over patches, ``(n, N)``, as ``(n, C', P')``."""
        return (
            matrix.reshape(len(matrix), *self.order.shape) if self.native else matrix[:, self.order]
        )

    def joined(self, split: Reals) -> Reals:
        """Return rows over lines and taps, ``(n, C', P')``, as rows over patches, ``(n, N)``."""
        if self.native:
            return split.reshape(len(split), -1)
        rows = np.empty((len(split), self.order.size), split.dtype)
        rows[:, self.order] = split
        return rows

    @cached_property
    def target(self) -> Array:
        """The target, shape (F, C', P')."""
        return self.split(self.problem.target)

    @cached_property
    def image(self) -> Array:
        """The image of the target, shape (F, C', P')."""
        return self.split(self.problem.image)

    @cached_property
    def over_lines(self) -> Array:
        """Mean over the taps of the moment of the lines, shape (C', C'), a little ridged."""
        sigma = self.problem.sigma
        total = np.zeros((self.lines, self.lines))
        for line in self.order.T:
            total += sigma[np.ix_(line, line)]
        return ridged(total / self.taps)

    @cached_property
    def over_taps(self) -> Array:
        """Moment of the taps, shape (P', P'), in units of `over_lines`."""
        sigma, taps = self.problem.sigma, self.taps
        moment = np.array(
            [
                [sigma[self.order[:, p], self.order[:, q]].sum() for q in range(taps)]
                for p in range(taps)
            ]
        )
        return ridged(moment / (float(np.trace(moment)) / taps or 1.0))

    def root(self, lines: Indices) -> Array:
        """Return the lower Cholesky factor of `over_lines` for the lines of one cluster."""
        key = lines.tobytes()
        if key not in self.roots:
            block = self.over_lines[np.ix_(lines, lines)]
            self.roots[key] = linalg.cholesky(block, lower=True, check_finite=False)
        return self.roots[key]

    def contract(self, stage: InputStage) -> Reals:
        """Return ``sum_c A[j, c] Sigma[(c, p), :]`` of an input stage A, shape (J, P', N)."""
        sigma = self.problem.working
        groups, rank, _ = stage.weights.shape
        result = np.empty((groups * rank, self.taps, len(sigma)), sigma.dtype)
        whole = sigma.reshape(self.lines, self.taps, -1) if self.native and groups == 1 else None
        for group, (rows, lines) in enumerate(zip(stage.weights, stage.clusters, strict=True)):
            out = result[group * rank : (group + 1) * rank]
            for tap in range(self.taps):
                taken = sigma[self.order[lines, tap]] if whole is None else whole[:, tap]
                out[:, tap] = rows.astype(sigma.dtype, copy=False) @ taken
        return result


def quadratic_form(rows: Array, moment: Reals) -> float:
    """Return ``sum_i r_i M r_i^T`` over some rows r, ``(n, N)``, of a symmetric M, ``(N, N)``.

    The products are in the precision of M. What is below its diagonal is not multiplied by: it
    gives what is above once more.
    """
    total, step = 0.0, -(-len(moment) // STRIPES)
    for start in range(0, len(moment), step):
        stripe = np.ascontiguousarray(rows[:, start : start + step], moment.dtype)
        moved = stripe @ moment[start : start + step, start:]
        moved[:, step:] *= 2
        total += float(np.vdot(rows[:, start:], moved))
    return total


def ridged(matrix: Array, ridge: float = 1e-8) -> Array:
    """Return a positive semi-definite matrix plus a little of its mean eigenvalue."""
    return np.asarray(matrix + ridge_of(matrix, ridge) * np.eye(len(matrix)))


def ridge_of(matrix: Array, ridge: float) -> float:
    """Return a share of a matrix's mean eigenvalue, more than nothing."""
    return ridge * float(np.trace(matrix)) / len(matrix) + float(np.finfo(float).tiny)
