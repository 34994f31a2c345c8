"""Fits in the covariance metric: a start, then input stages and what follows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from onnx_lowrank.schemes.base import relative_error
from onnx_lowrank.schemes.factors import (
    BlockCPFactors,
    BlockTucker2Factors,
    MonochromaticFactors,
    SpatialFactors,
)
from onnx_lowrank.schemes.fits import stage_start
from onnx_lowrank.schemes.fits.covariance_problem import Indices, LayerProblem
from onnx_lowrank.schemes.fits.input_stage import InputStage
from onnx_lowrank.schemes.fits.output_stage import Free, LowRank, Outer
from onnx_lowrank.schemes.fits.reduced_rank import leading
from onnx_lowrank.schemes.fits.variable_projection import OutputStage, Part, fit_part
from onnx_lowrank.types import Array

Clusters = tuple[Indices, Indices]
F = TypeVar("F", Free, LowRank, Outer)


def tucker2_in_covariance(
    problem: LayerProblem, clusters: Clusters, k1: int, k2: int
) -> tuple[BlockTucker2Factors, float]:
    """Fit Tucker-2 to every block, all blocks of one cluster of outputs at once.

    Parameters
    ----------
    problem : LayerProblem
        The layer.
    clusters : pair of ndarray of int64, shapes (G, C / G) and (H, F / H)
    k1, k2 : int
        Ranks of the input and of the output side.

    Returns
    -------
    factors : BlockTucker2Factors
    error : float
        Relative error in the metric.
    """
    view, (inputs, outputs) = problem.channels, clusters
    whole = len(inputs) == 1 and len(outputs) == 1
    parts, total = [], 0.0
    for chosen in outputs:
        stage = np.stack(
            [
                stage_start.leading_lines(
                    view,
                    view.split(problem.leading_outputs(k2).T @ problem.target)
                    if whole
                    else _principal_rows(view.target[np.ix_(chosen, lines)], k2),
                    k1,
                    lines,
                )
                for lines in inputs
            ]
        )
        start = LowRank.empty(len(inputs), len(chosen), k1, k2, view.taps)
        part, error = fit_part(view, Part(chosen, InputStage(inputs, stage), start))
        parts.append(part)
        total += error
    output_stages = [_typed(part.output_stage, LowRank) for part in parts]
    cores = np.stack([f.cores for f in output_stages], axis=1)  # (G, H, K2, K1 P)
    factors = BlockTucker2Factors(
        inputs,
        outputs,
        inputs=np.stack([part.stage.weights for part in parts], axis=1),
        cores=cores.reshape(*cores.shape[:3], k1, *problem.kernel),
        outputs=np.stack([f.outputs for f in output_stages], axis=1)
        / problem.scale[outputs][None, :, :, None],
    )
    return factors, relative_error(total, problem.norm)


def cp_in_covariance(
    problem: LayerProblem, clusters: Clusters, rank: int
) -> tuple[BlockCPFactors, float]:
    """Fit a sum of outer products to every block, all of one cluster of outputs at once.

    Parameters and results are like those of `tucker2_in_covariance`.
    """
    view, (inputs, outputs) = problem.channels, clusters
    parts: list[Part] = []
    total = 0.0
    for chosen in outputs:
        terms = stage_start.leading_terms(view, chosen, inputs, rank)
        start = Outer(
            terms.outputs.transpose(1, 0, 2).reshape(len(chosen), -1),
            terms.kernels.reshape(-1, view.taps),
        )
        stage = InputStage(inputs, terms.inputs)
        part, error = fit_part(view, Part(chosen, stage, start))
        parts.append(part)
        total += error
    output_stages = [_typed(part.output_stage, Outer) for part in parts]
    groups = len(inputs)
    kernels = np.stack([f.kernels.reshape(groups, rank, -1) for f in output_stages], axis=1)
    found = np.stack(
        [f.outputs.reshape(-1, groups, rank).swapaxes(0, 1) for f in output_stages], axis=1
    )
    factors = BlockCPFactors(
        inputs,
        outputs,
        inputs=np.stack([part.stage.weights for part in parts], axis=1),
        kernels=kernels.reshape(*kernels.shape[:3], *problem.kernel),
        outputs=found / problem.scale[outputs][None, :, :, None],
    )
    return factors, relative_error(total, problem.norm)


def spatial_in_covariance(
    problem: LayerProblem, rank: int, column_first: Sequence[bool]
) -> tuple[SpatialFactors, float]:
    """Fit separable kernels in the order, of those given, that starts better.

    Results are like those of `tucker2_in_covariance`.
    """
    f, c, x, y = problem.weight.shape
    starts = []
    for column in column_first:
        view = problem.columns if column else problem.rows
        stage = InputStage.whole(stage_start.leading_target_lines(view, rank))
        start = Part(np.arange(f), stage, Free(np.zeros((f, rank, view.taps))))
        error = fit_part(view, start, steps=0)[1] if len(column_first) > 1 else 0.0
        starts.append((error, column, view, start))
    _, column, view, start = min(starts, key=lambda each: each[0])
    part, error = fit_part(view, start)
    second = _typed(part.output_stage, Free).values / problem.scale[:, None, None]
    first = part.stage.weights[0]
    factors = (
        SpatialFactors(first.reshape(rank, c, x, 1), second[:, :, None])
        if column
        else SpatialFactors(first.reshape(rank, c, 1, y), second[..., None])
    )
    return factors, relative_error(error, problem.norm)


def monochromatic_in_covariance(
    problem: LayerProblem, start: MonochromaticFactors
) -> tuple[MonochromaticFactors, float]:
    """Improve colours and filters, given which output sees which colour."""
    view = problem.channels
    colours, filters = start.colours.copy(), start.filters.reshape(len(start.filters), -1).copy()
    total = 0.0
    for colour in range(len(colours)):
        chosen = np.flatnonzero(start.colour_of == colour)
        stage = InputStage.whole(colours[colour : colour + 1])
        output_stage = Free(filters[chosen][:, None])
        part, error = fit_part(view, Part(chosen, stage, output_stage))
        length = float(np.linalg.norm(part.stage.weights)) or 1.0
        colours[colour] = part.stage.weights[0, 0] / length
        values = _typed(part.output_stage, Free).values[:, 0] * length
        filters[chosen] = values / problem.scale[chosen, None]
        total += error
    factors = MonochromaticFactors(colours, filters.reshape(-1, *problem.kernel), start.colour_of)
    return factors, relative_error(total, problem.norm)


def _principal_rows(block: Array, rank: int) -> Array:
    """Return the leading combinations of a block's outputs, ``(rank, n, P')``."""
    flat = block.reshape(len(block), -1)
    return (leading(flat @ flat.T, rank).T @ flat).reshape(rank, *block.shape[1:])


def _typed(output_stage: OutputStage, kind: type[F]) -> F:
    assert isinstance(output_stage, kind)
    return output_stage
