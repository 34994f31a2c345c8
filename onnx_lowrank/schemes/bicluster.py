"""Clusters of input and of output channels, and a low-rank form for every block.

Denton et al. 2014, section 3.2.2.
"""

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
)
from onnx_lowrank.schemes.factors import BlockCPFactors, BlockTucker2Factors, members
from onnx_lowrank.schemes.fits.blocks import fit_cp, fit_tucker2, start_cp, start_tucker2
from onnx_lowrank.schemes.fits.clustering import balanced_subspaces
from onnx_lowrank.schemes.fits.covariance_fit import cp_in_covariance, tucker2_in_covariance
from onnx_lowrank.schemes.fits.covariance_problem import LayerProblem
from onnx_lowrank.schemes.instances import Random, clusters, uniform
from onnx_lowrank.schemes.monochromatic import spatial_refusal

Known = dict[tuple[tuple[int, int], ...], tuple[NDArray[np.int64], NDArray[np.int64]]]

MEMBERS_PER_DIMENSION = 16  # of a cluster's subspace, while channels are assigned


def block_limit(rank: str, chosen: Mapping[str, int], conv: ConvSpec) -> int:
    """Return the largest useful value of a rank of a block scheme."""
    inputs = conv.in_channels // chosen.get("G", 1)
    outputs = conv.out_channels // chosen.get("H", 1)
    if rank == "K":
        sizes = sorted((inputs, outputs, conv.taps))
        return sizes[0] * sizes[1]  # any block is that many outer products: see exact_terms
    return {"G": conv.in_channels, "H": conv.out_channels, "K1": inputs, "K2": outputs}[rank]


@dataclass(frozen=True)
class BiclusterSVD(Scheme):
    """G x H blocks, each 1x1 to K1 channels, the kernel to K2 channels, 1x1 to its outputs."""

    G: int
    H: int
    K1: int
    K2: int

    name: ClassVar[str] = "bicluster-svd"
    structures: ClassVar[tuple[type[Factors], ...]] = (BlockTucker2Factors,)
    clusters: ClassVar[tuple[str, ...]] = ("G", "H")

    @classmethod
    def refusal(cls, conv: ConvSpec) -> str | None:
        """Refuse grouped Convs and kernels without spatial extent."""
        return spatial_refusal(conv)

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

    def instances(self, conv: ConvSpec, rng: Random) -> tuple[Factors, ...]:
        """Return blocks of random clusters."""
        c, f, blocks = conv.in_channels, conv.out_channels, [self.G, self.H]
        return (
            BlockTucker2Factors(
                clusters(rng, c, self.G),
                clusters(rng, f, self.H),
                uniform(rng, [*blocks, self.K1, c // self.G]),
                uniform(rng, [*blocks, self.K2, self.K1, *conv.kernel]),
                uniform(rng, [*blocks, f // self.H, self.K2]),
            ),
        )

    def fit(
        self, weight: Weight, *, metric: Metric, rng: np.random.Generator, group: int = 1
    ) -> Fit:
        """Bicluster, take SVDs per block, then alternate the bases of every block."""
        clusters = bicluster(check_finite(weight), self.G, self.H, self.K1, self.K2, rng)
        return fit_tucker2(weight, clusters, self.K1, self.K2, metric)

    def fit_in_covariance(self, problem: LayerProblem, rng: np.random.Generator) -> Fit:
        """Alternate the bases of every block in the metric, in which blocks see one another."""
        weight = problem.weight
        clusters = bicluster(weight, self.G, self.H, self.K1, self.K2, rng, known=problem.clusters)
        start = start_tucker2(weight, clusters, self.K1, self.K2)
        return problem.better(start, tucker2_in_covariance(problem, clusters, self.K1, self.K2))


@dataclass(frozen=True)
class BiclusterOuter(Scheme):
    """G x H blocks, each a sum of K outer products: 1x1, depthwise kernel, 1x1."""

    G: int
    H: int
    K: int

    name: ClassVar[str] = "bicluster-outer"
    structures: ClassVar[tuple[type[Factors], ...]] = (BlockCPFactors,)
    clusters: ClassVar[tuple[str, ...]] = ("G", "H")

    @classmethod
    def refusal(cls, conv: ConvSpec) -> str | None:
        """Refuse grouped Convs and kernels without spatial extent."""
        return spatial_refusal(conv)

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

    def instances(self, conv: ConvSpec, rng: Random) -> tuple[Factors, ...]:
        """Return blocks of random clusters."""
        c, f, blocks = conv.in_channels, conv.out_channels, [self.G, self.H]
        return (
            BlockCPFactors(
                clusters(rng, c, self.G),
                clusters(rng, f, self.H),
                uniform(rng, [*blocks, self.K, c // self.G]),
                uniform(rng, [*blocks, self.K, *conv.kernel]),
                uniform(rng, [*blocks, f // self.H, self.K]),
            ),
        )

    def fit(
        self, weight: Weight, *, metric: Metric, rng: np.random.Generator, group: int = 1
    ) -> Fit:
        """Bicluster, take outer products out of every block, then alternate over all of them."""
        clusters = bicluster(check_finite(weight), self.G, self.H, self.K, self.K, rng)
        return fit_cp(weight, clusters, self.K, metric, deflate=True)

    def fit_in_covariance(self, problem: LayerProblem, rng: np.random.Generator) -> Fit:
        """Alternate over all terms in the metric, in which blocks see one another."""
        weight = problem.weight
        clusters = bicluster(weight, self.G, self.H, self.K, self.K, rng, known=problem.clusters)
        start = start_cp(weight, clusters, self.K, deflate=True)
        return problem.better(start, cp_in_covariance(problem, clusters, self.K))


def bicluster(
    weight: Weight,
    groups_in: int,
    groups_out: int,
    k1: int,
    k2: int,
    rng: np.random.Generator,
    *,
    known: Known | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cluster input channels and, independently, output channels around subspaces.

    The rows of ``W_C`` (C x XYF) of one cluster should lie near a subspace of K1 dimensions, the
    columns of ``W_F`` (CXY x F) near one of K2: that is what the block then keeps. But a subspace
    with half as many dimensions as the cluster has members captures most of these whatever they
    are, so that none ever moves; a sixteenth lets them (measured on VGG-16 and CRAFT).

    Parameters
    ----------
    weight : ndarray, shape (F, C, *kernel)
    groups_in, groups_out, k1, k2 : int
        G, H, K1 and K2.
    rng : numpy.random.Generator
        Chooses the seeds.
    known : dict, optional
        Clusters of this weight found before: looked up, and added to.

    Returns
    -------
    input_clusters : ndarray of int64, shape (G, C / G)
    output_clusters : ndarray of int64, shape (H, F / H)
    """
    known = {} if known is None else known
    outputs, inputs = weight.shape[:2]
    rows = weight.swapaxes(0, 1).reshape(inputs, -1)
    columns = weight.reshape(outputs, -1)
    sides = ((rows, groups_in, k1), (columns, groups_out, k2))
    sizes = tuple(
        (clusters, min(rank, max(len(points) // clusters // MEMBERS_PER_DIMENSION, 1)))
        for points, clusters, rank in sides
    )
    if sizes not in known:
        found = []
        for (points, _, _), (clusters, dimension) in zip(sides, sizes, strict=True):
            labels = balanced_subspaces(points @ points.T, clusters, dimension, rng)
            found.append(members(labels, clusters))
        known[sizes] = found[0], found[1]
    return known[sizes]
