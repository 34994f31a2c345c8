"""A kxk stage to R channels per group, then a 1x1 stage to all outputs, and its best fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.schemes.base import Fit, Weight, check_finite, relative_error
from onnx_lowrank.schemes.fits.covariance_problem import LayerProblem
from onnx_lowrank.schemes.fits.reduced_rank import reduced_rank
from onnx_lowrank.schemes.structure import Arrays, Factors, Multilinear, OutputMap
from onnx_lowrank.types import Array


@dataclass(frozen=True)
class TwoStageFactors(Factors):
    """``W[g, f] = sum_r outputs[g, f, r] kernels[g, r]`` for every group g.

    Attributes
    ----------
    kernels : ndarray, shape (group, R, C / group, *kernel)
        The first stage, which carries the layer's kernel, strides, dilations and pads.
    outputs : ndarray, shape (group, F / group, R)
        The 1x1 stage.
    """

    kernels: Array
    outputs: Array

    def reconstruct(self) -> Weight:
        """Return the dense weight, ``(F, C / group, *kernel)``."""
        group, rank, *rest = self.kernels.shape
        dense = self.outputs @ self.kernels.reshape(group, rank, -1)
        return np.asarray(dense.reshape(-1, *rest))

    def output_map(self) -> OutputMap | None:
        """Return the 1x1 stage of a layer without groups."""
        if len(self.outputs) > 1:
            return None
        return OutputMap(
            self.outputs[0], self.kernels[0], lambda outputs: replace(self, outputs=outputs[None])
        )

    def multilinear(self) -> Multilinear:
        """Return all groups side by side."""
        group, rank, *rest = self.kernels.shape
        shape = (group * self.outputs.shape[1], *rest)

        def rebuild(arrays: Arrays) -> TwoStageFactors:
            return TwoStageFactors(arrays[0].reshape(self.kernels.shape), arrays[1])

        return Multilinear(
            ("gkn", "gfk", "gfn"),
            (self.kernels.reshape(group, rank, -1), self.outputs),
            lambda weight: weight.reshape(group, -1, int(np.prod(rest))),
            lambda blocks: blocks.reshape(shape),
            rebuild,
        )


def fit_two_stage(weight: Weight, rank: int, metric: Metric, group: int) -> Fit:
    """Fit the truncated SVD of every group, the published construction and the Frobenius optimum.

    Parameters
    ----------
    weight : ndarray, shape (F, C / group, *kernel)
        The dense weight.
    rank : int
        Channels per group between the stages.
    metric : Metric
        What the error is measured in.
    group : int
        Number of groups.
    """
    check_finite(weight)
    bases = [reduced_rank(part, rank)[0] for part in _groups(weight, group)]
    factors = _projected(weight, bases)
    rest = metric.squared_norm(weight - factors.reconstruct())
    error = relative_error(rest, metric.squared_norm(weight))
    return Fit(factors, error, error)


def two_stage_in_covariance(problem: LayerProblem, rank: int) -> Fit:
    """Fit by reduced-rank regression: the leading principal components of the responses.

    That is the optimum, in closed form. Both errors follow from the second moment of the
    responses, of which a projection keeps a part.

    Parameters
    ----------
    problem : LayerProblem
        The layer; groups and moments never formed are welcome.
    rank : int
        Channels per group between the stages.
    """
    bases = [vectors[:, :rank] for _, vectors in problem.directions]
    kept = sum(float(values[rank:].sum()) for values, _ in problem.directions)
    scales = problem.scale.reshape(problem.group, -1)
    lost = sum(
        _lost_by_svd(problem, group, plain[:, :rank])
        for group, plain in enumerate(problem.plain_directions)
    )
    factors = _projected(problem.target.reshape(problem.weight.shape), bases)
    factors = TwoStageFactors(factors.kernels, factors.outputs / scales[:, :, None])
    start_error, error = (relative_error(x, problem.norm) for x in (lost, kept))
    return Fit(factors, max(start_error, error), error)


def _lost_by_svd(problem: LayerProblem, group: int, plain: Array) -> float:
    """Return the squared error of the truncated SVD of a group's weight, by its basis."""
    scale = problem.scale.reshape(problem.group, -1)[group, :, None]
    parts = (
        each.reshape(problem.group, len(scale), -1) for each in (problem.target, problem.image)
    )
    target, image = (part[group] for part in parts)

    def rest(rows: Array) -> Array:  # of rows in units of the scaled outputs
        return rows - scale * (plain @ (plain.T @ (rows / scale)))

    if len(target) > target.shape[1]:
        return float(np.vdot(rest(target), rest(image)))
    return float(np.vdot(rest(np.eye(len(target))), rest(problem.responses[group])))


def _groups(weight: Weight, group: int) -> Array:
    return weight.reshape(group, len(weight) // group, -1)


def _projected(weight: Weight, bases: list[Array]) -> TwoStageFactors:
    """Return every group's projection onto orthonormal columns, ``(F / group, R)``."""
    kernels = [
        basis.T @ part for basis, part in zip(bases, _groups(weight, len(bases)), strict=True)
    ]
    rank = bases[0].shape[1]
    return TwoStageFactors(
        np.stack(kernels).reshape(len(bases), rank, *weight.shape[1:]), np.stack(bases)
    )
