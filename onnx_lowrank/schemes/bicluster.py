"""Clusters of input and of output channels, and a low-rank form for every block (Denton et al. 2014, section 3.2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.schemes import cp_fit, tucker2_fit
from onnx_lowrank.schemes.base import (
    Fit,
    Scheme,
    Weight,
    check_finite,
    nearest_divisor,
    relative_error,
)
from onnx_lowrank.schemes.clustering import balanced_subspaces
from onnx_lowrank.schemes.factors import (
    BlockCPFactors,
    BlockTucker2Factors,
    gather_blocks,
    members,
)
from onnx_lowrank.schemes.monochromatic import spatial_refusal

Array = NDArray[np.float64]


def block_limit(rank: str, chosen: Mapping[str, int], conv: ConvSpec) -> int:
    """Return the largest useful value of a rank of a block scheme."""
    inputs = conv.in_channels // chosen.get("G", 1)
    outputs = conv.out_channels // chosen.get("H", 1)
    if rank == "K":
        sizes = sorted((inputs, outputs, conv.taps))
        return sizes[0] * sizes[1]  # the rank of any block: one matrix product for the longest side
    return {"G": conv.in_channels, "H": conv.out_channels, "K1": inputs, "K2": outputs}[rank]


@dataclass(frozen=True)
class BiclusterSVD(Scheme):
    """G x H blocks, each 1x1 to K1 channels, the kernel to K2 channels, 1x1 to its outputs."""

    G: int
    H: int
    K1: int
    K2: int

    name: ClassVar[str] = "bicluster-svd"

    @classmethod
    def refusal(cls, conv: ConvSpec) -> str | None:
        """Refuse grouped Convs and kernels without spatial extent."""
        return spatial_refusal(cls.name, conv)

    @classmethod
    def limit(cls, rank: str, chosen: Mapping[str, int], conv: ConvSpec) -> int:
        """Clusters divide the channels; ranks are at most the channels of a block."""
        return block_limit(rank, chosen, conv)

    @classmethod
    def snap(cls, rank: str, value: float, limit: int) -> int:
        """Clusters are of one size: G divides C, H divides F."""
        return nearest_divisor(value, limit) if rank in "GH" else super().snap(rank, value, limit)

    def macs(self, conv: ConvSpec) -> int | None:
        """``GH (C/G K1 NM + (K1 XY K2 + K2 F/H) N'M')``."""
        if conv.input_positions is None or conv.output_positions is None:
            return None
        first = self.H * conv.in_channels * self.K1
        core = self.G * self.H * self.K1 * conv.taps * self.K2
        last = self.G * self.K2 * conv.out_channels
        return first * conv.input_positions + (core + last) * conv.output_positions

    def params(self, conv: ConvSpec) -> int:
        """``GH (C/G K1 + K1 XY K2 + K2 F/H)``."""
        core = self.G * self.H * self.K1 * conv.taps * self.K2
        return self.H * conv.in_channels * self.K1 + core + self.G * self.K2 * conv.out_channels

    def fit(self, weight: Weight, *, metric: Metric, rng: np.random.Generator) -> Fit:
        """Bicluster, take SVDs per block, then alternate the bases of every block."""
        clusters = bicluster(weight, self.G, self.H, self.K1, self.K2, rng)
        blocks = gather_blocks(check_finite(weight), *clusters)
        shape, kernel = blocks.shape, weight.shape[2:]
        flat = blocks.reshape(-1, *shape[2:])

        def factors(inputs: Array, outputs: Array) -> BlockTucker2Factors:
            middle = tucker2_fit.core(flat, inputs, outputs)
            return BlockTucker2Factors(
                *clusters,
                inputs=inputs.swapaxes(1, 2).reshape(self.G, self.H, self.K1, -1),
                cores=middle.reshape(self.G, self.H, self.K2, self.K1, *kernel),
                outputs=outputs.reshape(self.G, self.H, -1, self.K2),
            )

        inputs, outputs = tucker2_fit.successive_svd(flat, self.K1, self.K2)
        start = factors(inputs, outputs)
        final = factors(*tucker2_fit.hooi(flat, inputs, self.K2))
        return measured_fit(weight, start, final, metric)


@dataclass(frozen=True)
class BiclusterOuter(Scheme):
    """G x H blocks, each a sum of K outer products: 1x1, depthwise kernel, 1x1."""

    G: int
    H: int
    K: int

    name: ClassVar[str] = "bicluster-outer"

    @classmethod
    def refusal(cls, conv: ConvSpec) -> str | None:
        """Refuse grouped Convs and kernels without spatial extent."""
        return spatial_refusal(cls.name, conv)

    @classmethod
    def limit(cls, rank: str, chosen: Mapping[str, int], conv: ConvSpec) -> int:
        """Clusters divide the channels; K is at most the rank that any block can have."""
        return block_limit(rank, chosen, conv)

    @classmethod
    def snap(cls, rank: str, value: float, limit: int) -> int:
        """Clusters are of one size: G divides C, H divides F."""
        return nearest_divisor(value, limit) if rank in "GH" else super().snap(rank, value, limit)

    def macs(self, conv: ConvSpec) -> int | None:
        """``GHK (C/G NM + (XY + F/H) N'M')``."""
        if conv.input_positions is None or conv.output_positions is None:
            return None
        first = self.H * self.K * conv.in_channels
        rest = self.G * self.H * self.K * conv.taps + self.G * self.K * conv.out_channels
        return first * conv.input_positions + rest * conv.output_positions

    def params(self, conv: ConvSpec) -> int:
        """``GHK (C/G + XY + F/H)``."""
        depthwise = self.G * self.H * self.K * conv.taps
        return self.K * (self.H * conv.in_channels + self.G * conv.out_channels) + depthwise

    def fit(self, weight: Weight, *, metric: Metric, rng: np.random.Generator) -> Fit:
        """Bicluster, take outer products out of every block one by one, then alternate over all of them."""
        clusters = bicluster(weight, self.G, self.H, self.K, self.K, rng)
        blocks = gather_blocks(check_finite(weight), *clusters)
        shape, kernel = blocks.shape, weight.shape[2:]
        flat = blocks.reshape(-1, *shape[2:])

        def factors(terms: cp_fit.CPTerms) -> BlockCPFactors:
            return BlockCPFactors(
                *clusters,
                inputs=terms.inputs.reshape(self.G, self.H, self.K, -1),
                kernels=terms.kernels.reshape(self.G, self.H, self.K, *kernel),
                outputs=terms.outputs.reshape(self.G, self.H, -1, self.K),
            )

        if self.K == np.prod(sorted(shape[2:])[:2]):
            exact = factors(cp_fit.exact_terms(flat))
            return measured_fit(weight, exact, exact, metric)
        greedy, spatial = cp_fit.greedy_deflation(flat, self.K), cp_fit.spatial_svd(flat, self.K)
        better = cp_fit.squared_errors(flat, spatial) < cp_fit.squared_errors(flat, greedy)
        final = cp_fit.als(flat, cp_fit.select(better, spatial, greedy))
        return measured_fit(weight, factors(greedy), factors(final), metric)


def bicluster(
    weight: Weight, groups_in: int, groups_out: int, k1: int, k2: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cluster input channels and, independently, output channels around subspaces.

    The rows of ``W_C`` (C x XYF) of one cluster should lie in a subspace of K1 dimensions, the columns of ``W_F``
    (CXY x F) in one of K2: that is what the block then keeps. With as many dimensions as members every clustering is
    as good, so at most half of them count.

    Returns
    -------
    input_clusters : ndarray of int64, shape (G, C / G)
    output_clusters : ndarray of int64, shape (H, F / H)
    """
    outputs, inputs = weight.shape[:2]
    rows = weight.swapaxes(0, 1).reshape(inputs, -1)
    columns = weight.reshape(outputs, -1)
    found = []
    for points, clusters, rank in ((rows, groups_in, k1), (columns, groups_out, k2)):
        size = len(points) // clusters
        dimension = min(rank, max(size // 2, 1))
        labels = balanced_subspaces(points @ points.T, clusters, dimension, rng)
        found.append(members(labels, clusters))
    return found[0], found[1]


def measured_fit(
    weight: Weight,
    start: BlockTucker2Factors | BlockCPFactors,
    final: BlockTucker2Factors | BlockCPFactors,
    metric: Metric,
) -> Fit:
    """Return the better of two sets of factors, with the errors of both."""
    norm = metric.squared_norm(weight)
    errors = [
        relative_error(metric.squared_norm(weight - factors.reconstruct()), norm)
        for factors in (start, final)
    ]
    return Fit(final if errors[1] <= errors[0] else start, errors[0], min(errors))
