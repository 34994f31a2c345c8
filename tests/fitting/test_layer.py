from __future__ import annotations

import numpy as np

from onnx_lowrank.fitting.layer import FitProblem, fit_layer, fit_layer_by_schemes
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.schemes.channel import Channel
from onnx_lowrank.schemes.one_block import CP, Tucker2


def problem() -> FitProblem:
    weight = np.random.default_rng(0).standard_normal((8, 6, 3, 3))
    return FitProblem(weight, Frobenius(), lambda fitted: fitted.sum(axis=(1, 2, 3)))


def test_of_several_schemes_each_gets_the_fit_that_it_gets_alone() -> None:
    schemes = [CP(4), Tucker2(3, 4), Channel(2)]
    for scheme, fit in zip(
        schemes, fit_layer_by_schemes("conv", schemes, problem(), seed=3), strict=True
    ):
        alone = fit_layer("conv", scheme, problem(), seed=3)
        np.testing.assert_array_equal(fit.factors.reconstruct(), alone.factors.reconstruct())
        assert (fit.scheme, fit.metric, fit.error) == (scheme, "frobenius", alone.error)
        assert fit.bias is not None
        # The bias goes with the fitted weight, not with the layer's own.
        np.testing.assert_array_equal(fit.bias, fit.factors.reconstruct().sum(axis=(1, 2, 3)))


def test_only_sums_of_terms_can_cancel() -> None:
    cp = fit_layer("conv", CP(4), problem(), seed=0)
    assert cp.cancellation is not None
    assert cp.cancellation > 0
    assert fit_layer("conv", Channel(2), problem(), seed=0).cancellation is None


def test_the_layer_and_the_seed_fix_every_choice() -> None:
    first, again = (
        fit_layer("conv", CP(4), problem(), seed=seed).factors.reconstruct() for seed in (1, 1)
    )
    np.testing.assert_array_equal(first, again)
