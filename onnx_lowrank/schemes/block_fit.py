"""Fits of all blocks of a weight, given the clusters of its channels."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.schemes import cp_fit, cp_start, tucker2_fit
from onnx_lowrank.schemes.base import Fit, Weight, relative_error
from onnx_lowrank.schemes.factors import BlockCPFactors, BlockTucker2Factors, gather_blocks

Array = NDArray[np.float64]
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
    blocks = gather_blocks(weight, *clusters)
    n_in, n_out = blocks.shape[:2]
    flat, kernel = blocks.reshape(-1, *blocks.shape[2:]), weight.shape[2:]

    def factors(inputs: Array, outputs: Array) -> BlockTucker2Factors:
        middle = tucker2_fit.core(flat, inputs, outputs)
        return BlockTucker2Factors(
            *clusters,
            inputs=inputs.swapaxes(1, 2).reshape(n_in, n_out, k1, -1),
            cores=middle.reshape(n_in, n_out, k2, k1, *kernel),
            outputs=outputs.reshape(n_in, n_out, -1, k2),
        )

    inputs, outputs = tucker2_fit.successive_svd(flat, k1, k2)
    start = factors(inputs, outputs)
    final = factors(*tucker2_fit.hooi(flat, inputs, k2))
    return measured_fit(weight, start, final, metric)


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
    blocks = gather_blocks(weight, *clusters)
    n_in, n_out = blocks.shape[:2]
    flat, kernel = blocks.reshape(-1, *blocks.shape[2:]), weight.shape[2:]

    def factors(terms: cp_fit.CPTerms) -> BlockCPFactors:
        return BlockCPFactors(
            *clusters,
            inputs=terms.inputs.reshape(n_in, n_out, rank, -1),
            kernels=terms.kernels.reshape(n_in, n_out, rank, *kernel),
            outputs=terms.outputs.reshape(n_in, n_out, -1, rank),
        )

    if rank == math.prod(sorted(flat.shape[1:])[:2]):
        exact = factors(cp_start.exact_terms(flat))
        return measured_fit(weight, exact, exact, metric)
    start = terms = cp_start.spatial_svd(flat, rank)
    if deflate:
        start = cp_start.greedy_deflation(flat, rank)
        better = cp_fit.squared_errors(flat, terms) < cp_fit.squared_errors(flat, start)
        terms = cp_fit.select(better, terms, start)
    return measured_fit(weight, factors(start), factors(cp_fit.als(flat, terms)), metric)


def measured_fit(weight: Weight, start: BlockFactors, final: BlockFactors, metric: Metric) -> Fit:
    """Return the better of two sets of factors, with the errors of both."""
    norm = metric.squared_norm(weight)
    errors = [
        relative_error(metric.squared_norm(weight - factors.reconstruct()), norm)
        for factors in (start, final)
    ]
    return Fit(final if errors[1] <= errors[0] else start, errors[0], min(errors))
