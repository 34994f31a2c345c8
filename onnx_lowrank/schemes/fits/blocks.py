"""Fits of all blocks of a weight, given the clusters of its channels."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.schemes.base import Fit, Weight, relative_error
from onnx_lowrank.schemes.factors import BlockCPFactors, BlockTucker2Factors, gather_blocks
from onnx_lowrank.schemes.fits import cp_als, cp_start, hooi
from onnx_lowrank.types import Array

Clusters = tuple[NDArray[np.int64], NDArray[np.int64]]
BlockFactors = TypeVar("BlockFactors", BlockTucker2Factors, BlockCPFactors)


def one_block(weight: Weight) -> Clusters:
    """Return the clusters of a weight that is one block: all channels, in their order."""
    return np.arange(weight.shape[1])[None], np.arange(weight.shape[0])[None]


def fit_tucker2(weight: Weight, clusters: Clusters, k1: int, k2: int, metric: Metric) -> Fit:
    """Fit Tucker-2 to every block: successive SVDs, then the bases in turn.

    Parameters
    ----------
    weight : ndarray, shape (F, C, *kernel)
    clusters : pair of ndarray of int64, shapes (G, C / G) and (H, F / H)
    k1, k2 : int
        Ranks of the input and of the output side.
    metric : Metric
        What the errors are measured in.
    """
    blocks = _flat_blocks(weight, clusters)
    inputs, outputs = hooi.successive_svd(blocks, k1, k2)
    start = _tucker2_factors(weight, clusters, inputs, outputs)
    final = _tucker2_factors(weight, clusters, *hooi.hooi(blocks, inputs, k2))
    return measured_fit(weight, start, final, metric)


def start_tucker2(weight: Weight, clusters: Clusters, k1: int, k2: int) -> BlockTucker2Factors:
    """Return the published construction: successive SVDs of every block."""
    bases = hooi.successive_svd(_flat_blocks(weight, clusters), k1, k2)
    return _tucker2_factors(weight, clusters, *bases)


def fit_cp(weight: Weight, clusters: Clusters, rank: int, metric: Metric, *, deflate: bool) -> Fit:
    """Fit a sum of outer products to every block: a start, then all terms in turn.

    Parameters
    ----------
    weight : ndarray, shape (F, C, *kernel)
    clusters : pair of ndarray of int64, shapes (G, C / G) and (H, F / H)
    rank : int
        Terms of a block.
    metric : Metric
        What the errors are measured in.
    deflate : bool
        Whether the start is the published deflation, and not an SVD per spatial filter. The fit
        begins at the better of both.
    """
    blocks = _flat_blocks(weight, clusters)
    if is_exact(blocks, rank):
        exact = _cp_factors(weight, clusters, cp_start.exact_terms(blocks))
        return measured_fit(weight, exact, exact, metric)
    start = terms = cp_start.spatial_svd(blocks, rank)
    if deflate:
        start = cp_start.greedy_deflation(blocks, rank)
        better = cp_als.squared_errors(blocks, terms) < cp_als.squared_errors(blocks, start)
        terms = cp_als.select(better, terms, start)
    factors = [_cp_factors(weight, clusters, t) for t in (start, cp_als.als(blocks, terms))]
    return measured_fit(weight, factors[0], factors[1], metric)


def start_cp(
    weight: Weight,
    clusters: Clusters,
    rank: int,
    *,
    deflate: bool,
    known: cp_start.SpatialSVD | None = None,
) -> BlockCPFactors:
    """Return the published construction, or the exact terms where there are enough.

    `known` is the decomposition of the blocks where that was made before.
    """
    blocks = _flat_blocks(weight, clusters)
    if is_exact(blocks, rank):
        terms = cp_start.exact_terms(blocks)
    elif deflate:
        terms = cp_start.greedy_deflation(blocks, rank)
    else:
        terms = (known or cp_start.SpatialSVD.of(blocks)).leading(rank)
    return _cp_factors(weight, clusters, terms)


def is_exact(blocks: Array, rank: int) -> bool:
    """Whether blocks ``(B, F, C, P)`` are sums of `rank` outer products whatever they are."""
    return bool(rank == math.prod(sorted(blocks.shape[1:])[:2]))


def measured_fit(weight: Weight, start: BlockFactors, final: BlockFactors, metric: Metric) -> Fit:
    """Return the better of two sets of factors, with the errors of both."""
    norm = metric.squared_norm(weight)
    errors = [
        relative_error(metric.squared_norm(weight - factors.reconstruct()), norm)
        for factors in (start, final)
    ]
    return Fit(final if errors[1] <= errors[0] else start, errors[0], min(errors))


def _flat_blocks(weight: Weight, clusters: Clusters) -> Array:
    blocks = gather_blocks(weight, *clusters)
    return blocks.reshape(-1, *blocks.shape[2:])


def _tucker2_factors(
    weight: Weight, clusters: Clusters, inputs: Array, outputs: Array
) -> BlockTucker2Factors:
    middle = hooi.core(_flat_blocks(weight, clusters), inputs, outputs)
    grid = len(clusters[0]), len(clusters[1])
    return BlockTucker2Factors(
        *clusters,
        inputs=inputs.swapaxes(1, 2).reshape(*grid, *inputs.shape[:0:-1]),
        cores=middle.reshape(*grid, *middle.shape[1:3], *weight.shape[2:]),
        outputs=outputs.reshape(*grid, *outputs.shape[1:]),
    )


def _cp_factors(weight: Weight, clusters: Clusters, terms: cp_als.CPTerms) -> BlockCPFactors:
    grid = len(clusters[0]), len(clusters[1])
    rank = terms.inputs.shape[1]
    return BlockCPFactors(
        *clusters,
        inputs=terms.inputs.reshape(*grid, rank, -1),
        kernels=terms.kernels.reshape(*grid, rank, *weight.shape[2:]),
        outputs=terms.outputs.reshape(*grid, -1, rank),
    )
