"""What ranks that were not fitted lose, beside what they do lose once they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.metrics.covariance import Covariance
from onnx_lowrank.schemes import Scheme
from onnx_lowrank.schemes.fits.fit import fit_schemes
from onnx_lowrank.search.candidate_schemes import candidate_schemes
from onnx_lowrank.search.error_curve import fitted_first, predicted_errors
from onnx_lowrank.search.settings import SETTINGS

LARGE = replace(SETTINGS, small_patch=0)  # every layer counts as one whose fits take long


def conv(channels: int, kernel: int = 3) -> ConvSpec:
    return ConvSpec(
        in_channels=channels,
        out_channels=channels,
        kernel=(kernel, kernel),
        strides=(1, 1),
        dilations=(1, 1),
        pads=(kernel // 2,) * 4,
        group=1,
        input_size=(14, 14),
        output_size=(14, 14),
    )


def errors(layer: ConvSpec, schemes: tuple[Scheme, ...]) -> dict[str, float]:
    """Fit a weight and a moment whose spectra fall as those of trained layers do."""
    rng = np.random.default_rng(0)
    size = layer.in_channels * layer.taps
    turns = [np.linalg.qr(rng.standard_normal((n, n)))[0] for n in (size, layer.out_channels)]
    falling = np.arange(1.0, layer.out_channels + 1) ** -0.8
    weight = (turns[1] * falling) @ turns[0][: layer.out_channels]
    samples = rng.standard_normal((3 * size, size)) @ np.diag(np.arange(1.0, size + 1) ** -0.3)
    metric = Covariance((samples.T @ samples / len(samples))[None])
    fits = fit_schemes(schemes, weight.reshape(layer.weight_shape), metric=metric, rng=rng)
    return {each.spec: fit.error for each, fit in zip(schemes, fits, strict=True)}


@pytest.mark.parametrize(
    ("fitted", "median", "most"),
    # Of one fit the ratio to a closed form goes as in VGG-16, which this layer is only like.
    [((0.13,), 0.15, 0.5), ((0.24, 0.1), 0.08, 0.4)],
)
def test_ranks_between_and_beyond_are_predicted(
    fitted: tuple[float, ...], median: float, most: float
) -> None:
    layer = conv(64)
    schemes = candidate_schemes(layer)
    found = errors(layer, schemes)
    steps = {n: replace(each, fitted=fitted) for n, each in SETTINGS.rank_steps.items()}
    first = fitted_first(schemes, layer, replace(LARGE, rank_steps=steps))
    predicted = predicted_errors(schemes, layer, {each.spec: found[each.spec] for each in first})
    assert predicted.keys() == found.keys()
    off = [
        abs(np.log(predicted[each.spec] / found[each.spec]))
        for each in schemes
        if each not in first
    ]
    assert len(off) > 5
    assert np.median(off) < median
    assert max(off) < most


def test_formulas_and_small_layers_are_fitted_at_all_ranks() -> None:
    schemes = candidate_schemes(conv(64))
    assert fitted_first(schemes, conv(64)) == schemes  # a patch of 576 entries
    first = fitted_first(schemes, conv(64), LARGE)
    for name in {each.name for each in schemes}:
        fitted = [each for each in first if each.name == name]
        every = [each for each in schemes if each.name == name]
        assert fitted == every if name == "channel" else 1 <= len(fitted) <= 2 < len(every)
    matrices = candidate_schemes(conv(64, 1))
    assert fitted_first(matrices, conv(64, 1), LARGE) == matrices


def test_what_is_known_stays_and_what_nothing_is_known_of_is_left_out() -> None:
    layer = conv(64)
    schemes = candidate_schemes(layer)
    (channel, *_) = (each for each in schemes if each.name == "channel")
    (cp, other, *_) = (each for each in schemes if each.name == "cp")
    found = predicted_errors(schemes, layer, {cp.spec: 0.25})
    assert found[cp.spec] == 0.25
    assert channel.spec not in found
    assert 0 < found[other.spec] <= 1
    assert predicted_errors(schemes, layer, {}) == {}


@pytest.mark.parametrize("error", [0.0, 1.0])
def test_errors_of_none_and_of_all_are_bounded(error: float) -> None:
    layer = conv(64)
    schemes = candidate_schemes(layer)
    known = {each.spec: error for each in fitted_first(schemes, layer, LARGE)}
    found = predicted_errors(schemes, layer, known)
    assert all(0 <= value <= 1 for value in found.values())
