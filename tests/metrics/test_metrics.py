"""Every metric is a quadratic form, and `apply` its gradient."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.metrics.covariance import Covariance, RowCovariance
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.metrics.mahalanobis import Mahalanobis

SHAPE = (6, 2, 3)
RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((4, 6))
ROOTS = RNG.standard_normal((2, 6, 6))
DENSE = ROOTS @ ROOTS.swapaxes(1, 2)
OUTPUTS = RNG.uniform(size=6)
ALPHA = RNG.uniform(size=SHAPE)


def dense_form(metric: Metric) -> np.ndarray:
    """The metric as one matrix over all weights, from its published definition."""
    size = int(np.prod(SHAPE))
    if isinstance(metric, Mahalanobis):
        return np.diag(metric.alpha.ravel() ** 2)
    if isinstance(metric, Frobenius):
        return np.eye(size)
    assert isinstance(metric, Covariance | RowCovariance)
    weights = np.ones(6) if metric.outputs is None else metric.outputs
    form = np.zeros((6, 6, 6, 6))
    for f in range(6):
        if isinstance(metric, RowCovariance):
            sigma = metric.rows.T @ metric.rows + metric.ridge * np.eye(6)
        else:
            sigma = metric.moment[f // (6 // len(metric.moment))]
        form[f, :, f, :] = weights[f] * sigma
    return form.reshape(size, size)


METRICS = [
    Frobenius(),
    Mahalanobis(ALPHA),
    Covariance(DENSE[:1]),
    Covariance(DENSE),
    Covariance(DENSE, OUTPUTS),
    RowCovariance(ROWS, 0.3),
    RowCovariance(ROWS, 0.0, OUTPUTS),
]


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: type(m).__name__)
def test_norm_and_gradient_are_those_of_the_form(metric: Metric) -> None:
    weight = np.random.default_rng(1).standard_normal(SHAPE)
    before = weight.copy()
    form = dense_form(metric)
    # Sums of 36 products of numbers below 100, in float64.
    np.testing.assert_allclose(
        metric.apply(weight).ravel(), form @ weight.ravel(), rtol=0, atol=1e-12 * np.abs(form).max()
    )
    expected = weight.ravel() @ form @ weight.ravel()
    assert metric.squared_norm(weight) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(weight, before)
    assert metric.apply(weight) is not weight


def test_names_are_those_a_user_types() -> None:
    assert [m.name for m in METRICS] == ["frobenius", "mahalanobis", *["covariance"] * 5]


def test_output_weights_are_mean_squares_of_mean_one() -> None:
    found = Mahalanobis(ALPHA).output_weights()
    squares = (ALPHA**2).reshape(6, -1).sum(axis=1)
    np.testing.assert_allclose(found, squares / squares.mean(), rtol=1e-14)
    np.testing.assert_array_equal(Mahalanobis(np.zeros(SHAPE)).output_weights(), np.ones(6))
