"""Separable kernels: a column of taps, then a row of taps, or the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.schemes.base import (
    Factors,
    Fit,
    Scheme,
    Weight,
    check_finite,
    relative_error,
)
from onnx_lowrank.schemes.factors import SpatialFactors
from onnx_lowrank.schemes.fits.covariance_fit import spatial_in_covariance
from onnx_lowrank.schemes.fits.covariance_problem import LayerProblem
from onnx_lowrank.schemes.fits.reduced_rank import reduced_rank, spectrum
from onnx_lowrank.schemes.instances import Random, uniform

__all__ = ["Order", "Spatial", "SpatialFactors", "orders", "separate"]

Order = Literal["column first", "row first"]


@dataclass(frozen=True)
class Spatial(Scheme):
    """X x 1 to R channels, then 1 x Y, or the reverse (Jaderberg et al., BMVC 2014, scheme 2).

    The order with fewer parameters is taken; where both have as many, the one that fits better.
    """

    R: int

    name: ClassVar[str] = "spatial"
    structures: ClassVar[tuple[type[Factors], ...]] = (SpatialFactors,)

    @classmethod
    def refusal(cls, conv: ConvSpec) -> str | None:
        """Refuse grouped Convs and kernels that are not two-dimensional."""
        if conv.group != 1:
            return f"it is a grouped Conv (group {conv.group}), and this scheme needs group 1"
        if len(conv.kernel) != 2 or min(conv.kernel) == 1:
            return "its kernel does not extend along two axes, so that there is nothing to separate"
        return None

    @classmethod
    def limit(cls, rank: str, chosen: Mapping[str, int], conv: ConvSpec) -> int:
        """Return the rank of the matrix whose sides are the two stages."""
        c, f, (x, y) = conv.in_channels, conv.out_channels, conv.kernel
        sides = {"column first": (c * x, f * y), "row first": (c * y, f * x)}
        return max(min(sides[order]) for order in orders(conv.weight_shape))

    @classmethod
    def spectra(cls, weight: Weight, group: int) -> Mapping[str, NDArray[np.float64]]:
        """Spectrum of the matrix whose sides are the two stages, in the first of its orders."""
        return {"R": spectrum(unfold(weight, orders(weight.shape)[0]))}

    def macs(self, conv: ConvSpec) -> int | None:
        """``R (C X N' M + F Y N' M')``, or the like with the axes exchanged.

        Where both orders have as many parameters but not as many operations (a plane that is not
        square under a stride), the larger figure: the fit decides which it is.
        """
        if conv.input_size is None or conv.output_size is None or conv.output_positions is None:
            return None
        (n, m), (n_out, m_out) = conv.input_size, conv.output_size
        x, y = conv.kernel
        first = {"column first": x * n_out * m, "row first": y * n * m_out}
        second = {"column first": y * conv.output_positions, "row first": x * conv.output_positions}
        return self.R * max(
            conv.in_channels * first[order] + conv.out_channels * second[order]
            for order in orders(conv.weight_shape)
        )

    def params(self, conv: ConvSpec) -> int:
        """``R (C X + F Y)``, or with X and Y exchanged."""
        c, f, (x, y) = conv.in_channels, conv.out_channels, conv.kernel
        return self.R * min(c * x + f * y, c * y + f * x)

    def instances(self, conv: ConvSpec, rng: Random) -> tuple[Factors, ...]:
        """Return the stages in every order that a fit may choose."""
        c, f, (x, y) = conv.in_channels, conv.out_channels, conv.kernel
        kernels = {"column first": ((x, 1), (1, y)), "row first": ((1, y), (x, 1))}
        return tuple(
            SpatialFactors(uniform(rng, [self.R, c, *first]), uniform(rng, [f, self.R, *second]))
            for first, second in (kernels[order] for order in orders(conv.weight_shape))
        )

    def fit(
        self, weight: Weight, *, metric: Metric, rng: np.random.Generator, group: int = 1
    ) -> Fit:
        """Truncate an SVD, which is the optimum in the Frobenius norm (Tai et al., ICLR 2016)."""
        check_finite(weight)
        norm = metric.squared_norm(weight)
        candidates = [separate(weight, self.R, order) for order in orders(weight.shape)]
        errors = [
            relative_error(metric.squared_norm(weight - each.reconstruct()), norm)
            for each in candidates
        ]
        best = int(np.argmin(errors))
        return Fit(candidates[best], start_error=errors[0], error=errors[best])

    def fit_in_covariance(self, problem: LayerProblem, rng: np.random.Generator) -> Fit:
        """Fit the stages in the metric, in the order whose own principal directions keep more."""
        candidates = orders(problem.weight.shape)
        start = separate(problem.weight, self.R, candidates[0])
        columns = [order == "column first" for order in candidates]
        return problem.better(start, spatial_in_covariance(problem, self.R, columns))


def orders(shape: tuple[int, ...]) -> tuple[Order, ...]:
    """Return the orders with the fewest parameters for a weight ``(F, C, X, Y)``: one or both."""
    f, c, x, y = shape
    column, row = c * x + f * y, c * y + f * x
    if column == row:
        return ("column first", "row first")
    return ("column first",) if column < row else ("row first",)


def unfold(weight: Weight, order: Order) -> Weight:
    """Return the matrix of one order: its rows belong to the second stage, columns to the first."""
    f, c, x, y = weight.shape
    if order == "column first":
        return weight.transpose(0, 3, 1, 2).reshape(f * y, c * x)
    return weight.transpose(0, 2, 1, 3).reshape(f * x, c * y)


def separate(weight: Weight, rank: int, order: Order) -> SpatialFactors:
    """Return the best factors of one order in the Frobenius norm."""
    f, c, x, y = weight.shape
    b, a = reduced_rank(unfold(weight, order), rank)
    if order == "column first":
        return SpatialFactors(
            a.reshape(rank, c, x, 1), b.reshape(f, y, rank).swapaxes(1, 2)[:, :, None]
        )
    return SpatialFactors(a.reshape(rank, c, 1, y), b.reshape(f, x, rank).swapaxes(1, 2)[..., None])
