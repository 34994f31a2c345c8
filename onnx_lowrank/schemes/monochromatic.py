"""Monochromatic first layers: a few colours, and one spatial filter per output on one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

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
    nearest_divisor,
    relative_error,
)
from onnx_lowrank.schemes.factors import MonochromaticFactors
from onnx_lowrank.schemes.fits.clustering import assign_balanced, balanced_subspaces
from onnx_lowrank.schemes.fits.covariance_fit import monochromatic_in_covariance
from onnx_lowrank.schemes.fits.covariance_problem import LayerProblem
from onnx_lowrank.schemes.fits.hooi import leading_left
from onnx_lowrank.schemes.instances import Random, shuffled, uniform
from onnx_lowrank.types import Array

Labels = NDArray[np.int64]

MAX_SWEEPS = 100


@dataclass(frozen=True)
class Monochromatic(Scheme):
    """C colours (1x1), then one spatial filter per output (Denton et al. 2014, section 3.2.1)."""

    C: int

    name: ClassVar[str] = "mono"
    structures: ClassVar[tuple[type[Factors], ...]] = (MonochromaticFactors,)

    @classmethod
    def refusal(cls, conv: ConvSpec) -> str | None:
        """Refuse grouped Convs and kernels without spatial extent."""
        return spatial_refusal(conv)

    @classmethod
    def limit(cls, rank: str, chosen: Mapping[str, int], conv: ConvSpec) -> int:
        """At most one colour per output."""
        return conv.out_channels

    @classmethod
    def snap(cls, rank: str, value: float, limit: int) -> int:
        """Every colour serves as many outputs: C divides F."""
        return nearest_divisor(value, limit)

    def macs(self, conv: ConvSpec) -> int | None:
        """``C' C NM + XYF N'M'``."""
        if conv.input_positions is None or conv.output_positions is None:
            return None
        colours = self.C * conv.in_channels * conv.input_positions
        return colours + conv.taps * conv.out_channels * conv.output_positions

    def params(self, conv: ConvSpec) -> int:
        """``C C' + XYF``."""
        return self.C * conv.in_channels + conv.taps * conv.out_channels

    def instances(self, conv: ConvSpec, rng: Random) -> tuple[Factors, ...]:
        """Return colours of outputs in random order."""
        outputs = conv.out_channels
        colour_of = shuffled(rng, np.repeat(np.arange(self.C), outputs // self.C))
        colours = uniform(rng, [self.C, conv.in_channels])
        return (MonochromaticFactors(colours, uniform(rng, [outputs, *conv.kernel]), colour_of),)

    def fit(
        self, weight: Weight, *, metric: Metric, rng: np.random.Generator, group: int = 1
    ) -> Fit:
        """Cluster colours as lines, then alternate filters, colours and clusters."""
        kernel = weight.shape[2:]
        flat = check_finite(weight).reshape(*weight.shape[:2], -1)
        moments = flat @ flat.swapaxes(1, 2)
        start_labels, start_colours, start_filters = _published_start(flat, self.C, rng)
        start = flat - start_colours[start_labels][:, :, None] * start_filters[:, None]
        colours, labels = _refine(moments, start_labels, self.C)
        filters = np.einsum("fc,fcp->fp", colours[labels], flat)
        factors = MonochromaticFactors(
            colours, filters.reshape(-1, *kernel), labels.astype(np.int64)
        )
        norm = metric.squared_norm(weight)
        return Fit(
            factors,
            start_error=relative_error(metric.squared_norm(start.reshape(weight.shape)), norm),
            error=relative_error(metric.squared_norm(weight - factors.reconstruct()), norm),
        )

    def fit_in_covariance(self, problem: LayerProblem, rng: np.random.Generator) -> Fit:
        """Take the clusters of the plain norm, then alternate filters and colours in the metric."""
        fit = self.fit(problem.weight, metric=problem.metric, rng=rng)
        assert isinstance(fit.factors, MonochromaticFactors)
        factors, error = monochromatic_in_covariance(problem, fit.factors)
        return Fit(factors, fit.start_error, error) if error <= fit.error else fit


def _published_start(
    flat: Array, colours: int, rng: np.random.Generator
) -> tuple[Labels, Array, Array]:
    """Cluster the rank-1 colours u_f of all outputs as lines; filters are the old ``s_f v_f``."""
    left, values, right = np.linalg.svd(flat, full_matrices=False)
    u, filters = left[:, :, 0], values[:, :1] * right[:, 0]
    labels = balanced_subspaces(u @ u.T, colours, 1, rng)
    centres = _centres(u[:, :, None] * u[:, None], labels, colours)
    # A colour and its negative are one line: the filter takes the sign.
    signs = np.where(np.einsum("fc,fc->f", centres[labels], u) < 0, -1.0, 1.0)
    return labels, centres, filters * signs[:, None]


def _refine(moments: Array, labels: Labels, colours: int) -> tuple[Array, Labels]:
    """Alternate the best colour of every cluster and the best balanced clusters.

    With its filter refitted, an output f leaves ``tr S_f - u^T S_f u`` of its energy,
    ``S_f = W_f W_f^T``: both steps raise the sum of ``u^T S_f u``.
    """
    captured = -np.inf
    for _ in range(MAX_SWEEPS):
        centres = _centres(moments, labels, colours)
        gain = np.einsum("kc,fcd,kd->fk", centres, moments, centres, optimize=True)
        energy = float(gain[np.arange(labels.size), labels].sum())
        if energy <= captured * (1 + 1e-12):
            break
        captured, kept = energy, (centres, labels)
        labels = assign_balanced(gain)
    return kept


def _centres(moments: Array, labels: Labels, colours: int) -> Array:
    """Return the leading eigenvector of every cluster's summed moments, ``(colours, C)``."""
    summed = np.stack([moments[labels == k].sum(axis=0) for k in range(colours)])
    return leading_left(summed, 1)[:, :, 0]


def spatial_refusal(conv: ConvSpec) -> str | None:
    """Return why a scheme for dense kernels with spatial extent refuses `conv`, or None."""
    if conv.group != 1:
        return f"it is a grouped Conv (group {conv.group}), and this scheme needs group 1"
    if conv.taps == 1:
        return "its kernel has no spatial extent; use svd"
    return None
