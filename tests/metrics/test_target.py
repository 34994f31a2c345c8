"""Fit targets: against the plain least-squares problem over the samples themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnx_lowrank.metrics.accumulator import MomentAccumulator
from onnx_lowrank.metrics.covariance import Covariance
from onnx_lowrank.metrics.moments import LayerStatistics
from onnx_lowrank.metrics.target import MIN_INTENSITY, fit_target

GROUPS, OUTPUTS, LENGTH = 2, 6, 4


def samples(count: int, groups: int = GROUPS, length: int = LENGTH) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    original = 2.0 + rng.standard_normal((groups, count, length))
    noise = rng.standard_normal((groups, count, length))
    return original, 0.8 * original + 0.3 * noise - 0.5


def statistics(
    x: np.ndarray, original: np.ndarray | None = None, *, dense: bool = True
) -> LayerStatistics:
    weight = None if original is None else layer(len(x), x.shape[-1])[0]
    sums = MomentAccumulator(len(x), x.shape[-1], dense=dense, weight=weight)
    for start in range(0, x.shape[1], 10):
        part = slice(start, start + 10)
        before = None if original is None else original[:, part]
        sums.add(x[:, part], positions=10, original=before)
    return sums.result()


def without_noise(found: LayerStatistics) -> LayerStatistics:
    """As of very many images: the least shrinkage."""
    return replace(found, intensity=0.0, centred_intensity=0.0, mean_intensity=0.0)


def layer(groups: int = GROUPS, length: int = LENGTH) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal(
        (OUTPUTS, length // 2, 2) if length % 2 == 0 else (OUTPUTS, length)
    )
    return weight, rng.standard_normal(OUTPUTS), rng.standard_normal(weight.shape)


def outputs(weight: np.ndarray, bias: np.ndarray, x: np.ndarray) -> np.ndarray:
    matrix = weight.reshape(len(x), -1, x.shape[-1])
    return (matrix @ x.swapaxes(1, 2)).reshape(len(weight), -1) + bias[:, None]


# The least shrinkage replaces a millionth of the metric.
NEAR = 20 * MIN_INTENSITY


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_the_problem_ranks_weights_as_the_outputs_do(
    refit: bool, asymmetric: bool, dense: bool
) -> None:
    groups, length = (GROUPS, LENGTH) if dense else (1, 50)
    count = 200 if dense else 30
    original, x = samples(count, groups, length)
    weight, bias, direction = layer(groups, length)
    given = original if asymmetric else None
    found = without_noise(statistics(x, given, dense=dense))
    problem = fit_target(found, weight, bias, refit_bias=refit)
    wanted = outputs(weight, bias, original if asymmetric else x)

    def error(fitted: np.ndarray) -> float:
        return float(np.sum((wanted - outputs(fitted, problem.bias(fitted), x)) ** 2) / count)

    # The measured error is the metric's but for a constant: differences agree.
    steps = [weight, weight + 0.1 * direction, 0.3 * weight, direction]
    measured = np.array([error(s) for s in steps])
    predicted = np.array([problem.metric.squared_norm(s - problem.weight) for s in steps])
    spread = np.ptp(measured)
    assert spread > 1
    np.testing.assert_allclose(
        measured - measured[0], predicted - predicted[0], rtol=0, atol=NEAR * measured.max()
    )
    if not asymmetric:
        np.testing.assert_array_equal(problem.weight, weight)
        assert measured[0] < 1e-20


def test_the_refitted_bias_is_the_best_one() -> None:
    original, x = samples(100)
    weight, bias, fitted = layer()
    problem = fit_target(without_noise(statistics(x, original)), weight, bias)
    wanted = outputs(weight, bias, original)
    best = (wanted - outputs(fitted, np.zeros(OUTPUTS), x)).mean(axis=1)
    # Two sums of 100 terms below 100 in float64.
    np.testing.assert_allclose(problem.bias(fitted), best, rtol=0, atol=1e-11)
    kept = fit_target(statistics(x, original), weight, bias, refit_bias=False)
    np.testing.assert_array_equal(kept.bias(fitted), bias)
    assert (
        fit_target(statistics(x), weight, refit_bias=False).bias(fitted).tolist() == [0] * OUTPUTS
    )


@pytest.mark.parametrize("dense", [False, True])
def test_one_image_says_nothing_of_others(dense: bool) -> None:
    _, x = samples(1, 1, 50)
    weight, bias, fitted = layer(1, 50)
    problem = fit_target(statistics(x, dense=dense), weight, bias)
    # The plain norm but for a factor, and the bias that the layer has.
    factor = problem.metric.squared_norm(fitted) / float(np.sum(fitted**2))
    np.testing.assert_allclose(problem.metric.apply(fitted), factor * fitted, rtol=1e-12)
    np.testing.assert_allclose(problem.bias(fitted), bias, rtol=0, atol=1e-13)


def test_two_images_of_a_patch_each_do_not_look_alike() -> None:
    rng = np.random.default_rng(3)
    x = 0.5 + rng.standard_normal((2, 50))
    sums = MomentAccumulator(1, 50)
    for each in x:
        sums.add(each[None, None], positions=1)
    found = sums.result()
    assert found.centred_intensity < 1e-9  # both lie on opposite sides of their mean
    problem = fit_target(found, layer(1, 50)[0])
    assert isinstance(problem.metric, Covariance)
    least = np.linalg.eigvalsh(problem.metric.moment[0])[0]
    energy = np.trace(problem.metric.moment[0]) / 50
    twice = 1 - (1 - found.intensity) ** 2
    assert least == pytest.approx(twice * energy, rel=1e-6)
    assert found.intensity > 0.1


def test_a_weight_of_other_outputs_is_refused() -> None:
    original, x = samples(30)
    with pytest.raises(ValueError, match="outputs do not fit a weight"):
        fit_target(statistics(x, original), layer()[0].repeat(2, axis=0))


@pytest.mark.parametrize("trust", [0.0, 0.4, 1.0])
def test_the_bias_changes_as_far_as_the_mean_is_trusted(trust: float) -> None:
    original, x = samples(100)
    weight, bias, fitted = layer()
    found = replace(statistics(x, original), mean_intensity=1 - trust)
    best = fit_target(without_noise(found), weight, bias).bias(fitted)
    some = fit_target(found, weight, bias).bias(fitted)
    np.testing.assert_allclose(some - bias, trust * (best - bias), rtol=0, atol=1e-11)


@pytest.mark.parametrize("dense", [False, True])
def test_equal_inputs_leave_the_weight_as_it_is(dense: bool) -> None:
    _, x = samples(30, 1, 50)
    weight, bias, fitted = layer(1, 50)
    one, two = (
        fit_target(s, weight, bias)
        for s in (statistics(x, dense=dense), statistics(x, x, dense=dense))
    )
    np.testing.assert_array_equal(two.weight, weight)
    np.testing.assert_allclose(two.bias(fitted), one.bias(fitted), rtol=0, atol=1e-10)


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("intensity", [0.0, 0.1, 0.7, 1.0])
def test_rows_and_matrices_give_the_same_problem(refit: bool, intensity: float) -> None:
    original, x = samples(30, 1, 50)
    weight, bias, fitted = layer(1, 50)
    one, two = (
        fit_target(
            replace(
                statistics(x, original, dense=dense),
                intensity=intensity,
                centred_intensity=intensity,
            ),
            weight,
            bias,
            refit_bias=refit,
            outputs=np.arange(1.0, OUTPUTS + 1),
        )
        for dense in (False, True)
    )
    # Linear systems of condition up to 50 / MIN_INTENSITY in float64: 1e-16 * 5e7, and a margin.
    np.testing.assert_allclose(two.weight, one.weight, rtol=0, atol=1e-7)
    np.testing.assert_allclose(two.bias(fitted), one.bias(fitted), rtol=0, atol=1e-11)
    np.testing.assert_allclose(
        two.metric.apply(fitted), one.metric.apply(fitted), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("intensity", [0.0, 0.3, 1.0])
def test_shrinkage_keeps_the_trace_and_makes_the_metric_definite(intensity: float) -> None:
    _, x = samples(20)
    x[:, :, 1] = 0.0  # an input that is never on
    found = replace(statistics(x), intensity=intensity)
    metric = fit_target(found, layer()[0], refit_bias=False).metric
    assert isinstance(metric, Covariance)
    for shrunk, raw in zip(metric.moment, found.moments.second, strict=True):
        np.testing.assert_array_equal(shrunk, shrunk.T)
        assert np.trace(shrunk) == pytest.approx(np.trace(raw), rel=1e-12)
        least = max(intensity, MIN_INTENSITY) * np.trace(raw) / LENGTH
        assert np.linalg.eigvalsh(shrunk)[0] >= least * (1 - 1e-6)
    if intensity == 1:
        mean = np.trace(found.moments.second[0]) / LENGTH
        np.testing.assert_allclose(
            metric.moment[0], mean * np.eye(LENGTH), rtol=0, atol=1e-14 * mean
        )


@pytest.mark.parametrize("dense", [False, True])
def test_constant_inputs_give_the_plain_norm(dense: bool) -> None:
    x = np.zeros((1, 20, 50))
    weight, _, _ = layer(1, 50)
    metric = fit_target(statistics(x, dense=dense), weight).metric
    assert metric.squared_norm(weight) == pytest.approx(float(np.sum(weight**2)), rel=1e-12)


def test_statistics_of_another_layer_are_refused() -> None:
    _, x = samples(20)
    with pytest.raises(ValueError, match="do not fit a weight"):
        fit_target(statistics(x), np.zeros((OUTPUTS, 3)))
