"""The metric of gradients: its scale is its own."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_lowrank.metrics.mahalanobis import Mahalanobis

SQUARES = np.random.default_rng(0).uniform(size=(4, 3, 2)) ** 4


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_alpha_does_not_depend_on_the_scale_of_gradients(scale: float) -> None:
    alpha = Mahalanobis.from_gradients(scale * SQUARES).alpha
    expected = np.sqrt(SQUARES / SQUARES.mean()) + 0.5
    np.testing.assert_allclose(alpha, expected, rtol=1e-12)


def test_the_regulariser_is_what_weights_without_gradient_have() -> None:
    squares = SQUARES.copy()
    squares[0] = 0
    alpha = Mahalanobis.from_gradients(squares, regulariser=0.1).alpha
    np.testing.assert_array_equal(alpha[0], 0.1)
    assert alpha[1:].min() > 0.1


def test_without_any_gradient_all_weights_count_alike() -> None:
    alpha = Mahalanobis.from_gradients(np.zeros((2, 3))).alpha
    np.testing.assert_array_equal(alpha, np.full((2, 3), 1.5))
