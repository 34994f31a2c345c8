"""Fits in every metric: real errors, several schemes at once, weights of outputs, full rank."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from builders import fit_scheme
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import SchemeError
from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.metrics.covariance import Covariance, RowCovariance
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.metrics.mahalanobis import Mahalanobis
from onnx_lowrank.schemes import SchemeSpec
from onnx_lowrank.schemes.fits.als import refine
from onnx_lowrank.schemes.fits.covariance_problem import LayerProblem
from onnx_lowrank.schemes.fits.fit import fit_schemes

Array = NDArray[np.float64]
EPS = float(np.finfo(np.float64).eps)
F, C, KERNEL = 12, 8, (3, 2)
CONV = ConvSpec(
    in_channels=C,
    out_channels=F,
    kernel=KERNEL,
    strides=(1, 1),
    dilations=(1, 1),
    pads=(0, 0, 0, 0),
)
SPECS = (
    "mono:C=3",
    "bicluster-svd:G=2,H=2,K1=2,K2=3",
    "bicluster-outer:G=2,H=2,K=4",
    "tucker2:R1=4,R2=5",
    "cp:R=6",
    "spatial:R=4",
    "channel:R=4",
)
FULL = (
    "bicluster-svd:G=2,H=2,K1=4,K2=6",
    "bicluster-outer:G=2,H=2,K=24",
    "tucker2:R1=8,R2=12",
    "cp:R=48",
    "spatial:R=24",
    "channel:R=12",
)


def weight(seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal((F, C, *KERNEL))


def moment(length: int, seed: int = 2) -> Array:
    """Second moment of inputs that are correlated and differ in scale."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(length) + 0.3 * rng.standard_normal((length, length))
    samples = rng.standard_normal((200, length)) @ mixing * np.linspace(0.1, 1, length)
    return np.asarray(samples.T @ samples / 200)


def metric(name: str) -> Metric:
    outputs = np.random.default_rng(3).uniform(0.2, 3, F) if name == "combined" else None
    if name == "mahalanobis":
        return Mahalanobis(np.exp(np.random.default_rng(4).standard_normal((F, C, *KERNEL))))
    return Frobenius() if name == "frobenius" else Covariance(moment(C * 6)[None], outputs)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", ["frobenius", "covariance", "combined", "mahalanobis"])
@pytest.mark.parametrize("spec", SPECS)
def test_the_errors_are_the_real_ones_and_the_fit_pays(spec: str, name: str) -> None:
    target, form = weight(), metric(name)
    before = target.copy()
    fit = fit_scheme(SchemeSpec.parse(spec).resolve(CONV), target, metric=form, rng=rng())
    np.testing.assert_array_equal(target, before)
    dense = fit.factors.reconstruct()
    real = np.sqrt(form.squared_norm(target - dense) / form.squared_norm(target))
    # A squared error found as a difference of squared norms: eps times the terms of a sum, F C P
    # times as many in the worst case, of which the error here is never less than a hundredth.
    assert fit.error == pytest.approx(real, rel=100 * target.size * EPS)
    assert fit.error <= fit.start_error * (1 + 1e-12)
    if name != "frobenius":
        assert fit.error < 0.999 * fit.start_error


@pytest.mark.parametrize("name", ["covariance", "combined"])
@pytest.mark.parametrize("spec", SPECS)
def test_no_worse_than_general_least_squares(spec: str, name: str) -> None:
    target, form = weight(), metric(name)
    scheme = SchemeSpec.parse(spec).resolve(CONV)
    general = refine(
        scheme.fit(target, metric=Frobenius(), rng=rng()).factors, target, form, sweeps=40
    )
    norm = form.squared_norm(target)
    reached = np.sqrt(form.squared_norm(target - general.reconstruct()) / norm)
    # Both end in local minima of their own, of random weights that have no structure to find.
    assert fit_scheme(scheme, target, metric=form, rng=rng()).error <= 1.1 * reached


@pytest.mark.parametrize("name", ["covariance", "combined"])
@pytest.mark.parametrize("spec", FULL)
def test_exact_at_full_rank(spec: str, name: str) -> None:
    scheme = SchemeSpec.parse(spec).resolve(CONV)
    fit = fit_scheme(scheme, weight(), metric=metric(name), rng=rng())
    # The square root of what rounding and the ridge of a regression, 1e-10, leave of a squared one.
    assert fit.error <= 1e-5


@pytest.mark.parametrize("name", ["frobenius", "covariance", "mahalanobis"])
def test_fits_of_several_schemes_are_those_of_each_alone(name: str) -> None:
    texts = [*SPECS, "tucker2:R1=2,R2=3", "bicluster-svd:G=2,H=2,K1=1,K2=1", "channel:R=2"]
    schemes = [SchemeSpec.parse(text).resolve(CONV) for text in texts]
    fits = fit_schemes(schemes, weight(), metric=metric(name), rng=rng(7))
    for scheme, fit in zip(schemes, fits, strict=True):
        alone = fit_scheme(scheme, weight(), metric=metric(name), rng=rng(7))
        assert (fit.error, fit.start_error) == (alone.error, alone.start_error), scheme.spec
        for field in fields(fit.factors):  # type: ignore[arg-type]
            one, two = (getattr(f.factors, field.name) for f in (fit, alone))
            np.testing.assert_array_equal(one, two)


def test_several_schemes_multiply_the_weight_by_the_metric_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0
    apply = Covariance.apply

    def counted(self: Covariance, array: Array) -> Array:
        nonlocal calls
        calls += 1
        return apply(self, array)

    monkeypatch.setattr(Covariance, "apply", counted)
    schemes = [SchemeSpec.parse(f"channel:R={r}").resolve(CONV) for r in (2, 4, 6)]
    schemes += [SchemeSpec.parse(f"tucker2:R1={r},R2={r}").resolve(CONV) for r in (2, 4, 6)]
    errors = [
        f.error for f in fit_schemes(schemes, weight(), metric=metric("covariance"), rng=rng())
    ]
    assert calls == 1
    assert errors[:3] == sorted(errors[:3], reverse=True)
    assert errors[3:] == sorted(errors[3:], reverse=True)


@pytest.mark.parametrize("spec", SPECS)
def test_single_precision_searches_end_where_double_ones_do(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme, form = SchemeSpec.parse(spec).resolve(CONV), metric("covariance")
    double = fit_scheme(scheme, weight(), metric=form, rng=rng())
    monkeypatch.setattr("onnx_lowrank.schemes.fits.covariance_problem.SINGLE_FROM", 1)
    single = fit_scheme(scheme, weight(), metric=form, rng=rng())
    dense = single.factors.reconstruct()
    real = np.sqrt(form.squared_norm(weight() - dense) / form.squared_norm(weight()))
    # The error is that of the factors in double precision, whatever the search worked in.
    assert single.error == pytest.approx(real, rel=100 * dense.size * EPS)
    # A search ends at a relative fall of 1e-3 of the squared error; rounding may tip when.
    assert single.error == pytest.approx(double.error, rel=1e-3)


def test_outputs_that_count_for_nothing_do_no_harm() -> None:
    outputs = np.ones(F)
    outputs[::3] = 0.0
    form = Covariance(moment(C * 6)[None], outputs)
    for spec in SPECS:
        scheme = SchemeSpec.parse(spec).resolve(CONV)
        fit = fit_scheme(scheme, weight(), metric=form, rng=rng())
        dense = fit.factors.reconstruct()
        assert np.isfinite(dense).all()
        real = np.sqrt(form.squared_norm(weight() - dense) / form.squared_norm(weight()))
        # Their weight is raised to 1e-12 of the largest, so that its scale can be undone.
        assert fit.error == pytest.approx(real, abs=1e-5)


@pytest.mark.parametrize(
    ("kernel", "group"), [((), 1), ((1, 1), 1), ((1, 1), 2), ((3, 3), 1), ((3, 3), 2)]
)
def test_two_stages_of_every_group_are_the_optimum(kernel: tuple[int, ...], group: int) -> None:
    conv = ConvSpec(
        in_channels=12,
        out_channels=10,
        kernel=kernel,
        strides=(1,) * len(kernel),
        dilations=(1,) * len(kernel),
        pads=(0, 0) * len(kernel),
        group=group,
    )
    target = rng(5).standard_normal(conv.weight_shape)
    length = target[0].size
    moments = np.stack([moment(length, seed) for seed in range(group)])
    name = "channel" if kernel == (3, 3) else "svd"
    scheme = SchemeSpec.parse(f"{name}:R=3").resolve(conv)
    form = Covariance(moments)
    fit = fit_scheme(scheme, target, metric=form, rng=rng(), group=group)
    lost = 0.0
    for part, sigma in zip(target.reshape(group, -1, length), moments, strict=True):
        root = np.linalg.cholesky(sigma)
        lost += float(np.sum(np.linalg.svd(part @ root, compute_uv=False)[3:] ** 2))
    assert fit.error == pytest.approx(np.sqrt(lost / form.squared_norm(target)), rel=1e-9)


def test_moments_kept_as_samples_give_what_formed_ones_give() -> None:
    rows = rng(6).standard_normal((5, 9))
    target = rng(7).standard_normal((6, 9))
    conv = ConvSpec(in_channels=9, out_channels=6, kernel=(), strides=(), dilations=(), pads=())
    scheme = SchemeSpec.parse("svd:R=2").resolve(conv)
    formed = Covariance((rows.T @ rows + 0.1 * np.eye(9))[None])
    one, two = (
        fit_scheme(scheme, target, metric=form, rng=rng())
        for form in (RowCovariance(rows, 0.1), formed)
    )
    assert one.error == pytest.approx(two.error, rel=1e-9)
    np.testing.assert_allclose(
        one.factors.reconstruct(), two.factors.reconstruct(), rtol=0, atol=1e-9
    )


def test_a_weight_that_is_not_finite_is_an_error() -> None:
    bad = weight()
    bad[0, 0, 0, 0] = np.nan
    for name in ("frobenius", "covariance", "mahalanobis"):
        with pytest.raises(SchemeError, match="NaN or Inf"):
            fit_scheme(
                SchemeSpec.parse(SPECS[3]).resolve(CONV), bad, metric=metric(name), rng=rng()
            )


@pytest.mark.parametrize("spec", SPECS)
def test_inputs_and_weights_with_nothing_in_them(spec: str) -> None:
    scheme = SchemeSpec.parse(spec).resolve(CONV)
    dead = moment(C * 6).reshape(C, 6, C, 6)
    dead[2:5], dead[:, :, 2:5] = 0.0, 0.0
    form = Covariance(dead.reshape(1, C * 6, C * 6))
    fit = fit_scheme(scheme, weight(), metric=form, rng=rng())
    assert np.isfinite(fit.factors.reconstruct()).all()
    assert fit.error <= min(fit.start_error, 1.0)
    nothing = fit_scheme(scheme, 0 * weight(), metric=form, rng=rng())
    assert nothing.error == nothing.start_error == 0.0
    assert not nothing.factors.reconstruct().any()


def test_the_problem_of_a_layer_is_that_of_its_metric() -> None:
    form = metric("combined")
    assert isinstance(form, Covariance)
    problem = LayerProblem(weight(), form)
    assert problem.norm == pytest.approx(form.squared_norm(weight()), rel=1e-12)
    other = weight(9)
    real = np.sqrt(form.squared_norm(weight() - other) / form.squared_norm(weight()))
    assert problem.error(other) == pytest.approx(real, rel=1e-9)


@pytest.mark.parametrize(
    "text", ["mono:C=2", "tucker2:R1=2,R2=3", "cp:R=4", "spatial:R=3", "channel:R=3"]
)
def test_moments_of_a_kernel_that_are_never_formed_give_errors_in_their_metric(text: str) -> None:
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((6, 4, 3, 3))
    rows = rng.standard_normal((20, 36)) @ rng.standard_normal((36, 36))
    unformed = RowCovariance(rows, 0.1)
    formed = Covariance((rows.T @ rows + 0.1 * np.eye(36))[None])
    spec = ConvSpec(
        in_channels=4,
        out_channels=6,
        kernel=(3, 3),
        strides=(1, 1),
        dilations=(1, 1),
        pads=(0,) * 4,
    )
    scheme = SchemeSpec.parse(text).resolve(spec)
    found, best = (
        fit_scheme(scheme, weight, metric=metric, rng=np.random.default_rng(0))
        for metric in (unformed, formed)
    )
    rest = formed.squared_norm(weight - found.factors.reconstruct())
    assert found.error == pytest.approx(np.sqrt(rest / formed.squared_norm(weight)), rel=1e-6)
    if text.startswith("channel"):
        assert found.error == pytest.approx(best.error)
