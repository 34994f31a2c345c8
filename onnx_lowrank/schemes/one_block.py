"""Tucker-2 and CP of a whole layer: the block schemes with one block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.schemes.base import Fit, Scheme, Weight, check_finite
from onnx_lowrank.schemes.bicluster import BiclusterOuter, BiclusterSVD, block_limit
from onnx_lowrank.schemes.block_fit import fit_cp, fit_tucker2, one_block
from onnx_lowrank.schemes.monochromatic import spatial_refusal


@dataclass(frozen=True)
class Tucker2(Scheme):
    """1x1 to R1 channels, the kernel to R2 channels, 1x1 to the outputs (Kim et al., ICLR 2016)."""

    R1: int
    R2: int

    name: ClassVar[str] = "tucker2"

    @classmethod
    def refusal(cls, conv: ConvSpec) -> str | None:
        """Refuse grouped Convs and kernels without spatial extent."""
        return spatial_refusal(conv)

    @classmethod
    def limit(cls, rank: str, chosen: Mapping[str, int], conv: ConvSpec) -> int:
        """Ranks are at most the channels."""
        return block_limit({"R1": "K1", "R2": "K2"}[rank], {}, conv)

    def macs(self, conv: ConvSpec) -> int | None:
        """``C R1 NM + (R1 XY R2 + R2 F) N'M'``."""
        return BiclusterSVD(1, 1, self.R1, self.R2).macs(conv)

    def params(self, conv: ConvSpec) -> int:
        """``C R1 + R1 XY R2 + R2 F``."""
        return BiclusterSVD(1, 1, self.R1, self.R2).params(conv)

    def fit(
        self, weight: Weight, *, metric: Metric, rng: np.random.Generator, group: int = 1
    ) -> Fit:
        """Successive SVDs, then alternate the two bases (higher-order orthogonal iteration)."""
        check_finite(weight)
        return fit_tucker2(weight, one_block(weight), self.R1, self.R2, metric)


@dataclass(frozen=True)
class CP(Scheme):
    """1x1 to R channels, a depthwise kernel, 1x1 to the outputs (Lebedev et al., ICLR 2015)."""

    R: int

    name: ClassVar[str] = "cp"

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

    def fit(
        self, weight: Weight, *, metric: Metric, rng: np.random.Generator, group: int = 1
    ) -> Fit:
        """SVD per principal spatial filter, then alternating least squares over all terms."""
        check_finite(weight)
        return fit_cp(weight, one_block(weight), self.R, metric, deflate=False)
