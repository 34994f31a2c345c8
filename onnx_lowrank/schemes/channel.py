"""Fewer output channels: the layer's own kernel to R channels per group, then 1x1 to all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.schemes.base import Factors, Fit, Scheme, Weight
from onnx_lowrank.schemes.fits.covariance_problem import LayerProblem
from onnx_lowrank.schemes.fits.reduced_rank import spectrum
from onnx_lowrank.schemes.instances import Random, uniform
from onnx_lowrank.schemes.two_stage import TwoStageFactors, fit_two_stage, two_stage_in_covariance


@dataclass(frozen=True)
class TwoStageScheme(Scheme):
    """What `Channel` and `MatrixSVD` share: R channels per group between the two stages."""

    R: int

    structures: ClassVar[tuple[type[Factors], ...]] = (TwoStageFactors,)
    needs_moment: ClassVar[bool] = False

    @classmethod
    def limit(cls, rank: str, chosen: Mapping[str, int], conv: ConvSpec) -> int:
        """Return the rank of one group's full matrix."""
        return min(conv.in_channels // conv.group * conv.taps, conv.out_channels // conv.group)

    @classmethod
    def spectra(cls, weight: Weight, group: int) -> Mapping[str, NDArray[np.float64]]:
        """Spectra of the groups' matrices, added up: they share one rank."""
        parts = weight.reshape(group, len(weight) // group, -1)
        return {"R": np.sum([spectrum(part) for part in parts], axis=0)}

    def macs(self, conv: ConvSpec) -> int | None:
        """``R (C X Y + F) N'M'``: the first stage carries the stride."""
        positions = conv.output_positions
        return None if positions is None else self.params(conv) * positions

    def params(self, conv: ConvSpec) -> int:
        """``R (C X Y + F)``."""
        return self.R * (conv.in_channels * conv.taps + conv.out_channels)

    def instances(self, conv: ConvSpec, rng: Random) -> tuple[Factors, ...]:
        """Return two stages for each group."""
        group, inputs, outputs = conv.group, conv.in_channels, conv.out_channels
        kernels = uniform(rng, [group, self.R, inputs // group, *conv.kernel])
        return (TwoStageFactors(kernels, uniform(rng, [group, outputs // group, self.R])),)

    def fit(
        self, weight: Weight, *, metric: Metric, rng: np.random.Generator, group: int = 1
    ) -> Fit:
        """Truncate an SVD, group by group, which is the optimum in the Frobenius norm."""
        return fit_two_stage(weight, self.R, metric, group)

    def fit_in_covariance(self, problem: LayerProblem, rng: np.random.Generator) -> Fit:
        """Reduced-rank regression, group by group; see `two_stage_in_covariance`."""
        return two_stage_in_covariance(problem, self.R)


def one_output(conv: ConvSpec) -> str | None:
    """Return a sentence if a layer has one output per group, and so no rank, else None."""
    if conv.out_channels > conv.group:
        return None
    if conv.depthwise:
        return "a depthwise Conv has one output per group: there is no rank to lower"
    of = "per group" if conv.group > 1 else "channel"
    return f"the layer has one output {of}: there is no rank to lower"


@dataclass(frozen=True)
class Channel(TwoStageScheme):
    """kxk to R channels, then 1x1: principal components of the responses (Zhang et al. 2015)."""

    name: ClassVar[str] = "channel"

    @classmethod
    def refusal(cls, conv: ConvSpec) -> str | None:
        """Refuse layers of one output per group and kernels without spatial extent."""
        if reason := one_output(conv):
            return reason
        if conv.taps == 1:
            return "channel takes kernels with spatial extent; use svd for this layer"
        return None


@dataclass(frozen=True)
class MatrixSVD(TwoStageScheme):
    """A fully connected or 1x1 layer as two matrices (Denton et al. 2014, section 3.4)."""

    name: ClassVar[str] = "svd"

    @classmethod
    def refusal(cls, conv: ConvSpec) -> str | None:
        """Refuse layers of one output per group and kernels with spatial extent."""
        if reason := one_output(conv):
            return reason
        if conv.taps != 1:
            return "svd takes fully connected and 1x1 layers; use channel for this kernel"
        return None
