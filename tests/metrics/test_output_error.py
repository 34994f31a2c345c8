"""The expected squared output from moments, against the outputs themselves."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_lowrank.metrics.accumulator import MomentAccumulator
from onnx_lowrank.metrics.output_error import squared_output

# Sums of fewer than 1000 float64 products of about unit size.
ROUNDING = 1e-12


def outputs(weight: np.ndarray, bias: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """``W_g x + b``, for patches ``(groups, n, K)``: (n, F)."""
    groups, count, length = patches.shape
    product = patches @ weight.reshape(groups, -1, length).swapaxes(1, 2)
    return product.transpose(1, 0, 2).reshape(count, -1) + bias


@pytest.mark.parametrize(("groups", "dense"), [(1, True), (2, True), (1, False)])
def test_it_is_the_mean_of_the_squared_outputs(groups: int, dense: bool) -> None:
    rng = np.random.default_rng(0)
    # Inputs with a mean: the cross term with the bias counts.
    patches = 0.5 + rng.standard_normal((2, groups, 7, 12))
    weight, bias = rng.standard_normal((4, 3, 2, 2)), rng.standard_normal(4)
    sums = MomentAccumulator(groups, 12, dense=dense)
    for image in patches:
        sums.add(image, positions=7)
    moments = sums.result().moments
    for offset in (bias, np.zeros(4)):
        found = np.concatenate([outputs(weight, offset, image) for image in patches])
        expected = np.mean(np.sum(found**2, axis=1))
        given = offset if offset.any() else None
        assert squared_output(moments, weight, given) == pytest.approx(expected, rel=ROUNDING)


def test_a_bias_that_cancels_the_output_leaves_nothing() -> None:
    sums = MomentAccumulator(1, 3)
    sums.add(np.ones((1, 5, 3)), positions=5)
    moments = sums.result().moments
    weight = np.array([[[[1.0]], [[2.0]], [[3.0]]]])
    found = squared_output(moments, weight, np.array([-6.0]))
    assert 0 <= found <= 36 * ROUNDING


def test_moments_of_another_layer_are_refused() -> None:
    sums = MomentAccumulator(1, 3)
    sums.add(np.ones((1, 5, 3)), positions=5)
    with pytest.raises(ValueError, match="do not fit a weight"):
        squared_output(sums.result().moments, np.ones((2, 4, 1, 1)))
