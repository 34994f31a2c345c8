"""Monochromatic fits: structure, planted colours, and the steps of the refinement."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.schemes.base import Fit
from onnx_lowrank.schemes.factors import MonochromaticFactors
from onnx_lowrank.schemes.monochromatic import Monochromatic

Array = NDArray[np.float64]
EPS = float(np.finfo(np.float64).eps)
CONV1 = ConvSpec(
    in_channels=3,
    out_channels=96,
    kernel=(7, 7),
    strides=(2, 2),
    dilations=(1, 1),
    pads=(0, 0, 0, 0),
    input_size=(224, 224),
    output_size=(110, 110),
)


def fit(weight: Array, colours: int, seed: int = 0) -> tuple[Fit, MonochromaticFactors]:
    result = Monochromatic(colours).fit(weight, metric=Frobenius(), rng=np.random.default_rng(seed))
    return result, cast(MonochromaticFactors, result.factors)


def structured(
    outputs: int, inputs: int, colours: int, *kernel: int, seed: int = 0
) -> tuple[Array, NDArray[np.int64]]:
    """Return a weight that has the structure, with filters of either sign, and its colours."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(colours), outputs // colours))
    lines = rng.standard_normal((colours, inputs))
    filters = rng.standard_normal((outputs, *kernel))
    axes = tuple(range(2, 2 + len(kernel)))
    return np.expand_dims(lines[truth], axes) * filters[:, None], truth


@pytest.mark.parametrize(
    ("outputs", "inputs", "colours", "kernel"),
    [
        (12, 3, 3, (3, 3)),
        (24, 4, 4, (5,)),
        (16, 8, 8, (2, 2, 2)),
        (6, 3, 6, (3, 3)),
        (5, 2, 1, (3, 3)),
    ],
)
def test_exact_on_weights_that_have_the_structure(
    outputs: int, inputs: int, colours: int, kernel: tuple[int, ...]
) -> None:
    for seed in range(5):
        weight, truth = structured(outputs, inputs, colours, *kernel, seed=seed)
        result, factors = fit(weight, colours, seed)
        # Colours are eigenvectors of C x C matrices, good to C eps over the gap to the next
        # eigenvalue, which is 0: the structure is exact.
        assert result.error <= 16 * inputs * EPS, f"seed {seed}"
        found = factors.colour_of
        assert np.array_equal(found[:, None] == found, truth[:, None] == truth), f"seed {seed}"


def test_structure_holds_on_any_weight() -> None:
    weight = np.random.default_rng(1).standard_normal((12, 5, 3, 4))
    result, factors = fit(weight, 4)
    assert factors.colours.shape == (4, 5)
    assert factors.filters.shape == (12, 3, 4)
    assert np.bincount(factors.colour_of).tolist() == [3, 3, 3, 3]
    np.testing.assert_allclose(np.linalg.norm(factors.colours, axis=1), 1.0, rtol=8 * EPS)
    dense = factors.reconstruct().reshape(12, 5, -1)
    values = np.linalg.svd(dense, compute_uv=False)
    assert np.all(values[:, 1] <= 8 * EPS * values[:, 0]), "rank one per output"
    assert result.error < result.start_error


def test_filters_and_colours_are_each_the_best_given_the_rest() -> None:
    weight = np.random.default_rng(2).standard_normal((8, 4, 3, 3))
    _, factors = fit(weight, 2)
    flat = weight.reshape(8, 4, 9)
    for f in range(8):
        colour = factors.colours[factors.colour_of[f]]
        best = np.linalg.lstsq(colour[:, None], flat[f], rcond=None)[0][0]
        # The design is one unit column: its condition number is 1.
        np.testing.assert_allclose(factors.filters[f].ravel(), best, rtol=0, atol=64 * EPS)
    for k in range(2):
        # Fixed point: with the filters as they are, least squares returns the same colour line.
        mine = factors.colour_of == k
        design = factors.filters[mine].reshape(-1, 1)
        target = flat[mine].swapaxes(1, 2).reshape(-1, 4)
        best = np.linalg.lstsq(design, target, rcond=None)[0][0]
        np.testing.assert_allclose(best, factors.colours[k], rtol=0, atol=1e-10)


def test_no_exchange_of_two_outputs_lowers_the_error() -> None:
    for seed in range(12):
        weight = np.random.default_rng(seed).standard_normal((12, 3, 3, 3))
        # Outputs that differ in size: the start clusters directions alone, the error counts both.
        weight *= np.linspace(0.2, 3.0, 12)[:, None, None, None]
        _, factors = fit(weight, 4, seed)
        flat = weight.reshape(12, 3, 9)
        moments = flat @ flat.swapaxes(1, 2)
        gain = np.einsum("kc,fcd,kd->fk", factors.colours, moments, factors.colours)
        now = factors.colour_of
        for i in range(12):
            for j in range(i):
                change = gain[i, now[j]] + gain[j, now[i]] - gain[i, now[i]] - gain[j, now[j]]
                assert change <= 1e-12 * gain.max(), f"seed {seed}"


def test_a_colour_and_its_negative_are_one() -> None:
    rng = np.random.default_rng(4)
    weight = rng.standard_normal((12, 3, 3, 3))
    flipped = weight * rng.choice([-1.0, 1.0], size=(12, 1, 1, 1))
    (one, a), (two, b) = fit(weight, 4), fit(flipped, 4)
    assert one.error == pytest.approx(two.error, rel=1e-12)
    assert np.array_equal(a.colour_of, b.colour_of)


def test_one_input_channel_is_exact() -> None:
    weight = np.random.default_rng(5).standard_normal((6, 1, 3, 3))
    assert fit(weight, 2)[0].error <= 4 * EPS


@pytest.mark.parametrize(("colours", "reduction"), [(4, 2.97), (8, 2.94), (16, 2.88)])
def test_published_reductions(colours: int, reduction: float) -> None:
    dense, reduced = CONV1.macs, Monochromatic(colours).macs(CONV1)
    assert dense is not None
    assert reduced is not None
    # The published table prints two decimals, from planes of stated sizes rounded by the stride.
    assert dense / reduced == pytest.approx(reduction, rel=0.015)


def test_colours_run_at_input_and_filters_at_output_positions() -> None:
    scheme = Monochromatic(6)
    assert scheme.macs(CONV1) == 6 * 3 * 224 * 224 + 49 * 96 * 110 * 110
    assert scheme.params(CONV1) == 6 * 3 + 49 * 96
    assert scheme.macs(replace(CONV1, input_size=None)) is None
    assert scheme.macs(replace(CONV1, output_size=None)) is None
