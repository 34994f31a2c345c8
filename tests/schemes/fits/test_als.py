"""Least squares over the factors, in every metric, against dense formulations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.metrics.covariance import Covariance
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.metrics.mahalanobis import Mahalanobis
from onnx_lowrank.schemes import SchemeSpec
from onnx_lowrank.schemes.factors import MonochromaticFactors
from onnx_lowrank.schemes.fits.als import _half_step, refine
from onnx_lowrank.schemes.fits.preconditioner import Surrogate

F, C, KERNEL = 6, 4, (3, 2)
SPECS = (
    "mono:C=2",
    "bicluster-svd:G=2,H=2,K1=1,K2=2",
    "bicluster-outer:G=2,H=2,K=2",
    "tucker2:R1=2,R2=3",
    "cp:R=3",
    "spatial:R=2",
    "channel:R=2",
)
CONV = ConvSpec(
    in_channels=C,
    out_channels=F,
    kernel=KERNEL,
    strides=(1, 1),
    dilations=(1, 1),
    pads=(0, 0, 0, 0),
)


def weight() -> NDArray[np.float64]:
    return np.random.default_rng(1).standard_normal((F, C, *KERNEL))


def metric(name: str) -> tuple[Metric, NDArray[np.float64]]:
    """Return a metric and its dense square root R on flat weights: |R vec(W)| is the norm of W."""
    rng = np.random.default_rng(2)
    n = C * 6
    if name == "mahalanobis":
        alpha = np.exp(rng.standard_normal((F, C, *KERNEL)))
        return Mahalanobis(alpha), np.diag(alpha.ravel())
    if name == "frobenius":
        return Frobenius(), np.eye(F * n)
    samples = rng.standard_normal((200, n)) * np.linspace(0.1, 1, n)
    sigma = samples.T @ samples / 200
    outputs = rng.uniform(0.5, 2, F) if name == "combined" else None
    root = np.linalg.cholesky(sigma).T
    scales = np.ones(F) if outputs is None else np.sqrt(outputs)
    return Covariance(sigma[None], outputs), np.kron(np.diag(scales), root)


@pytest.mark.parametrize("name", ["frobenius", "covariance", "combined", "mahalanobis"])
@pytest.mark.parametrize("spec", SPECS)
def test_a_half_step_is_the_least_squares_solution(spec: str, name: str) -> None:
    form, root = metric(name)
    target = weight()
    factors = (
        SchemeSpec.parse(spec)
        .resolve(CONV)
        .fit(target, metric=Frobenius(), rng=np.random.default_rng(0))
        .factors
    )
    now = factors.multilinear()
    assert now is not None
    np.testing.assert_allclose(now.dense(), factors.reconstruct(), rtol=0, atol=1e-12)
    surrogate = Surrogate.of(form, now, target.shape)
    for index, array in enumerate(now.arrays):
        columns = [
            now.with_array(index, unit.reshape(array.shape)).dense().ravel()
            for unit in np.eye(array.size)
        ]
        jacobian = root @ np.stack(columns, axis=1)
        solution, *_ = np.linalg.lstsq(jacobian, root @ target.ravel(), rcond=None)
        best = np.linalg.norm(root @ target.ravel() - jacobian @ solution)

        residual = target - now.dense()
        stepped, left, moved = _half_step(
            now, index, residual, form.apply(residual), form, surrogate, steps=300, tolerance=1e-12
        )
        error = np.sqrt(form.squared_norm(target - stepped.dense()))
        # Conjugate gradients to 1e-12 in the residual: the error agrees to its square root.
        assert error == pytest.approx(best, rel=1e-6)
        np.testing.assert_allclose(left, target - stepped.dense(), rtol=0, atol=1e-9)
        np.testing.assert_allclose(moved, form.apply(left), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["frobenius", "covariance", "combined", "mahalanobis"])
@pytest.mark.parametrize("spec", SPECS)
def test_no_half_step_raises_the_error(spec: str, name: str) -> None:
    form, _ = metric(name)
    target = weight()
    factors = (
        SchemeSpec.parse(spec)
        .resolve(CONV)
        .fit(target, metric=Frobenius(), rng=np.random.default_rng(0))
        .factors
    )
    now = factors.multilinear()
    assert now is not None
    surrogate = Surrogate.of(form, now, target.shape)
    residual = target - now.dense()
    moved = form.apply(residual)
    errors = [form.squared_norm(residual)]
    for _ in range(4):
        for index in range(len(now.arrays)):
            now, residual, moved = _half_step(
                now, index, residual, moved, form, surrogate, steps=3, tolerance=1e-2
            )
            errors.append(form.squared_norm(target - now.dense()))
    # Rounding of a squared norm: eps times the number of terms.
    assert all(b <= a + 1e-13 * errors[0] for a, b in itertools.pairwise(errors))


@pytest.mark.parametrize("name", ["covariance", "combined", "mahalanobis"])
@pytest.mark.parametrize("spec", SPECS)
def test_refinement_pays_and_keeps_the_structure(spec: str, name: str) -> None:
    form, _ = metric(name)
    target = weight()
    before = target.copy()
    factors = (
        SchemeSpec.parse(spec)
        .resolve(CONV)
        .fit(target, metric=Frobenius(), rng=np.random.default_rng(0))
        .factors
    )
    refined = refine(factors, target, form)
    np.testing.assert_array_equal(target, before)
    assert type(refined) is type(factors)
    new = refined.arrays()
    for name, old in factors.arrays().items():
        assert old.shape == new[name].shape
    errors = [form.squared_norm(target - f.reconstruct()) for f in (factors, refined)]
    assert errors[1] < errors[0] * 0.999


def test_a_monochromatic_result_is_of_rank_one_per_output_and_has_its_colours() -> None:
    form, _ = metric("covariance")
    factors = (
        SchemeSpec.parse("mono:C=2")
        .resolve(CONV)
        .fit(weight(), metric=Frobenius(), rng=np.random.default_rng(0))
        .factors
    )
    refined = refine(factors, weight(), form)
    assert isinstance(refined, MonochromaticFactors)
    dense = refined.reconstruct().reshape(F, C, -1)
    values = np.linalg.svd(dense, compute_uv=False)
    assert np.all(values[:, 1:] <= 1e-12 * values[:, :1])
    directions = np.linalg.svd(dense)[0][:, :, 0]
    assert np.linalg.matrix_rank(directions, tol=1e-8) == 2
