from __future__ import annotations

import numpy as np
import pytest

from onnx_lowrank.estimation.int8 import chain_of_quantised, quantised, rounding_noise
from onnx_lowrank.estimation.work import Work
from onnx_lowrank.runtime.engines import CPU


def test_the_noise_is_that_of_rounding() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 40, 1, 1)) * np.linspace(0.2, 3, 6)[:, None, None, None]
    inputs = np.maximum(rng.standard_normal((20_000, 40)), 0)
    step = inputs.max() / 255
    steps = 2 * np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 255
    rounded = np.round(weight / steps) * steps
    error = np.round(inputs / step) * step @ rounded[:, :, 0, 0].T - inputs @ weight[:, :, 0, 0].T
    # Errors of 40 weights are one draw: their sum of squares is off by about the root of 2 / 40.
    np.testing.assert_allclose(
        np.mean(error**2, axis=0), rounding_noise(weight, inputs), rtol=4 * np.sqrt(2 / 40)
    )


def test_integers_are_kinds_of_their_own_and_a_quarter_of_the_bytes() -> None:
    (found,) = quantised([Work("Conv", 8.0, 16.0, 4.0)])
    assert found == Work("int8 Conv", 8.0, 4.0, 1.0)


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_chain_runs_on_integers(kernel: int) -> None:
    model, feeds = chain_of_quantised(16, kernel, 6, 2)
    assert [node.op_type for node in model.graph.node] == ["QLinearConv"] * 2
    (value,) = CPU.load(model).run(feeds).values()
    assert value.dtype == np.uint8
    assert value.shape == (1, 16, 6, 6)
    assert len(np.unique(value)) > 20  # neither all zero nor all at the end of the range
