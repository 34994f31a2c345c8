"""Tucker-2 and CP of a whole layer: the block schemes with one block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.schemes.base import Factors, Fit, Scheme, Weight, check_finite
from onnx_lowrank.schemes.bicluster import BiclusterOuter, BiclusterSVD, block_limit
from onnx_lowrank.schemes.factors import BlockCPFactors, BlockTucker2Factors
from onnx_lowrank.schemes.fits.blocks import (
    fit_cp,
    fit_tucker2,
    one_block,
    start_cp,
    start_tucker2,
)
from onnx_lowrank.schemes.fits.covariance_fit import cp_in_covariance, tucker2_in_covariance
from onnx_lowrank.schemes.fits.covariance_problem import LayerProblem
from onnx_lowrank.schemes.fits.reduced_rank import spectrum
from onnx_lowrank.schemes.instances import Random
from onnx_lowrank.schemes.monochromatic import spatial_refusal


@dataclass(frozen=True)
class Tucker2(Scheme):
    """1x1 to R1 channels, the kernel to R2 channels, 1x1 to the outputs (Kim et al., ICLR 2016)."""

    R1: int
    R2: int

    name: ClassVar[str] = "tucker2"
    structures: ClassVar[tuple[type[Factors], ...]] = (BlockTucker2Factors,)

    @classmethod
    def refusal(cls, conv: ConvSpec) -> str | None:
        """Refuse grouped Convs and kernels without spatial extent."""
        return spatial_refusal(conv)

    @classmethod
    def limit(cls, rank: str, chosen: Mapping[str, int], conv: ConvSpec) -> int:
        """Ranks are at most the channels."""
        return block_limit({"R1": "K1", "R2": "K2"}[rank], {}, conv)

    @classmethod
    def spectra(cls, weight: Weight, group: int) -> Mapping[str, NDArray[np.float64]]:
        """Spectra of the unfoldings along inputs and outputs."""
        sides = {"R1": weight.swapaxes(0, 1), "R2": weight}
        return {rank: spectrum(side.reshape(len(side), -1)) for rank, side in sides.items()}

    def macs(self, conv: ConvSpec) -> int | None:
        """``C R1 NM + (R1 XY R2 + R2 F) N'M'``."""
        return BiclusterSVD(1, 1, self.R1, self.R2).macs(conv)

    def params(self, conv: ConvSpec) -> int:
        """``C R1 + R1 XY R2 + R2 F``."""
        return BiclusterSVD(1, 1, self.R1, self.R2).params(conv)

    def instances(self, conv: ConvSpec, rng: Random) -> tuple[Factors, ...]:
        """Return one block."""
        return BiclusterSVD(1, 1, self.R1, self.R2).instances(conv, rng)

    def fit(
        self, weight: Weight, *, metric: Metric, rng: np.random.Generator, group: int = 1
    ) -> Fit:
        """Successive SVDs, then alternate the two bases (higher-order orthogonal iteration)."""
        check_finite(weight)
        return fit_tucker2(weight, one_block(weight), self.R1, self.R2, metric)

    def fit_in_covariance(self, problem: LayerProblem, rng: np.random.Generator) -> Fit:
        """Alternate the bases in the metric, from its own principal directions."""
        clusters = one_block(problem.weight)
        start = start_tucker2(problem.weight, clusters, self.R1, self.R2)
        return problem.better(start, tucker2_in_covariance(problem, clusters, self.R1, self.R2))


@dataclass(frozen=True)
class CP(Scheme):
    """1x1 to R channels, a depthwise kernel, 1x1 to the outputs (Lebedev et al., ICLR 2015)."""

    R: int

    name: ClassVar[str] = "cp"
    structures: ClassVar[tuple[type[Factors], ...]] = (BlockCPFactors,)

    @classmethod
    def refusal(cls, conv: ConvSpec) -> str | None:
        """Refuse grouped Convs and kernels without spatial extent."""
        return spatial_refusal(conv)

    @classmethod
    def limit(cls, rank: str, chosen: Mapping[str, int], conv: ConvSpec) -> int:
        """R is at most the rank that any weight of the shape can have."""
        return block_limit("K", {}, conv)

    def macs(self, conv: ConvSpec) -> int | None:
        """``R (C NM + (XY + F) N'M')``."""
        return BiclusterOuter(1, 1, self.R).macs(conv)

    def params(self, conv: ConvSpec) -> int:
        """``R (C + XY + F)``."""
        return BiclusterOuter(1, 1, self.R).params(conv)

    def instances(self, conv: ConvSpec, rng: Random) -> tuple[Factors, ...]:
        """Return one block."""
        return BiclusterOuter(1, 1, self.R).instances(conv, rng)

    def fit(
        self, weight: Weight, *, metric: Metric, rng: np.random.Generator, group: int = 1
    ) -> Fit:
        """SVD per principal spatial filter, then alternating least squares over all terms."""
        check_finite(weight)
        return fit_cp(weight, one_block(weight), self.R, metric, deflate=False)

    def fit_in_covariance(self, problem: LayerProblem, rng: np.random.Generator) -> Fit:
        """Alternate over all terms in the metric, from a start in a metric near it."""
        clusters = one_block(problem.weight)
        known = problem.spatial_svd
        start = start_cp(problem.weight, clusters, self.R, deflate=False, known=known)
        return problem.better(start, cp_in_covariance(problem, clusters, self.R))
