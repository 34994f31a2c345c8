"""Two stages with few channels between: the optimum of dense problems, metric by metric."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.metrics.covariance import Covariance
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.metrics.mahalanobis import Mahalanobis
from onnx_lowrank.schemes.channel import Channel, MatrixSVD
from onnx_lowrank.schemes.fits.covariance_problem import LayerProblem
from onnx_lowrank.schemes.two_stage import (
    TwoStageFactors,
    fit_two_stage,
    two_stage_in_covariance,
)

Array = NDArray[np.float64]
EPS = float(np.finfo(np.float64).eps)
F, C, TAPS, GROUP, RANK = 12, 4, 9, 2, 2


def weight(seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((F, C, 3, 3))


def moments(seed: int = 1) -> Array:
    """Second moments of every group's patches, well conditioned but far from the identity."""
    rows = np.random.default_rng(seed).standard_normal((GROUP, 200, C * TAPS))
    rows *= np.linspace(0.3, 3.0, C * TAPS)
    return rows.swapaxes(1, 2) @ rows / 200


def truncated(matrix: Array, rank: int) -> float:
    """Squared error of the best approximation of a rank."""
    return float(np.sum(np.linalg.svd(matrix, compute_uv=False)[rank:] ** 2))


@pytest.mark.parametrize("group", [1, 2, 3])
def test_frobenius_is_the_truncated_svd_of_every_group(group: int) -> None:
    w = weight()
    result = fit_two_stage(w, RANK, Frobenius(), group)
    factors = cast(TwoStageFactors, result.factors)
    assert factors.kernels.shape == (group, RANK, C, 3, 3)
    assert factors.outputs.shape == (group, F // group, RANK)
    best = sum(truncated(part, RANK) for part in w.reshape(group, -1, C * TAPS))
    # The squared error of a basis is off by the square of the basis's own error: by rounding only.
    assert result.error**2 * np.sum(w**2) == pytest.approx(best, rel=64 * F * EPS)
    assert result.error == result.start_error


def test_covariance_is_the_optimum_in_closed_form() -> None:
    w, sigma = weight(), moments()
    metric = Covariance(sigma)
    result = two_stage_in_covariance(LayerProblem(w, metric, GROUP), RANK)
    # |(M - M~) S^(1/2)| over all M~ of the rank: the truncated SVD of M S^(1/2), here from
    # Cholesky factors, a square root like any other.
    best = sum(
        truncated(part @ np.linalg.cholesky(s), RANK)
        for part, s in zip(w.reshape(GROUP, -1, C * TAPS), sigma, strict=True)
    )
    assert result.error**2 * metric.squared_norm(w) == pytest.approx(best, rel=1e-10)
    assert result.error < result.start_error


def test_outputs_that_count_more_are_fitted_better() -> None:
    w, sigma = weight(), moments()
    counts = np.random.default_rng(2).uniform(0.1, 10, F)
    metric = Covariance(sigma, counts)
    result = two_stage_in_covariance(LayerProblem(w, metric, GROUP), RANK)
    scaled = np.sqrt(counts)[:, None] * w.reshape(F, -1)
    best = sum(
        truncated(part @ np.linalg.cholesky(s), RANK)
        for part, s in zip(scaled.reshape(GROUP, -1, C * TAPS), sigma, strict=True)
    )
    assert result.error**2 * metric.squared_norm(w) == pytest.approx(best, rel=1e-10)


def test_another_metric_is_never_worse_than_the_start() -> None:
    w = weight()
    metric = Mahalanobis(np.random.default_rng(3).uniform(0.1, 3, w.shape))
    result = fit_two_stage(w, RANK, metric, 1)
    left = metric.squared_norm(w - result.factors.reconstruct()) / metric.squared_norm(w)
    assert result.error == pytest.approx(np.sqrt(left), rel=1e-12)
    assert result.error <= result.start_error


def test_the_responses_of_a_fully_connected_layer() -> None:
    rng = np.random.default_rng(4)
    for shape in ((30, 8), (8, 30)):
        w = rng.standard_normal(shape)
        result = fit_two_stage(w, 3, Frobenius(), 1)
        factors = cast(TwoStageFactors, result.factors)
        assert factors.kernels.shape == (1, 3, shape[1])
        assert result.error**2 * np.sum(w**2) == pytest.approx(truncated(w, 3), rel=1e-12)


def conv(f: int, c: int, *kernel: int, group: int = 1) -> ConvSpec:
    axes = len(kernel)
    return ConvSpec(
        in_channels=c,
        out_channels=f,
        kernel=kernel,
        strides=(1,) * axes,
        dilations=(1,) * axes,
        pads=(0,) * 2 * axes,
        group=group,
    )


def test_refusals_name_the_reason_and_the_scheme_to_use() -> None:
    assert "depthwise" in (Channel.refusal(conv(6, 6, 3, 3, group=6)) or "")
    assert "depthwise" in (MatrixSVD.refusal(conv(6, 6, 1, 1, group=6)) or "")
    assert "use svd" in (Channel.refusal(conv(6, 6, 1, 1)) or "")
    assert "use channel" in (MatrixSVD.refusal(conv(6, 6, 3, 3)) or "")


def test_one_output_is_not_depthwise() -> None:
    none = "there is no rank to lower"
    for scheme, size in ((Channel, 3), (MatrixSVD, 1)):
        plain = scheme.refusal(conv(1, 16, size, size))
        assert plain == f"the layer has one output channel: {none}"
        grouped = scheme.refusal(conv(2, 16, size, size, group=2))
        assert grouped == f"the layer has one output per group: {none}"
        assert "depthwise" in (scheme.refusal(conv(16, 16, size, size, group=16)) or "")
        assert scheme.refusal(conv(32, 16, size, size, group=16)) is None
    assert not conv(16, 1, 3, 3).depthwise
    assert not conv(1, 1, 3, 3).depthwise
    assert not conv(2, 16, 3, 3, group=2).depthwise
    assert conv(32, 16, 3, 3, group=16).depthwise


def test_published_reductions_of_fully_connected_layers() -> None:
    # N M weights against K (N + M); the published figures are rounded to the digits printed.
    for f, c, rank, printed in (
        (4096, 18432, 250, 13.4),
        (4096, 18432, 950, 3.5),
        (4096, 4096, 350, 5.8),
        (4096, 4096, 650, 3.14),
    ):
        layer = conv(f, c)
        digits = len(str(printed).partition(".")[2])
        reduction = layer.params / MatrixSVD(rank).params(layer)
        # 4096^2 / (650 * 8192) = 3.1508 is printed as 3.14, and 5.851 as 5.8: not rounded.
        assert abs(reduction - printed) <= 1.2 * 10.0**-digits
