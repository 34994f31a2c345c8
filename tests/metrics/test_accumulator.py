"""Moments and intensities: against the plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage

from onnx_lowrank.metrics.accumulator import SINGLE_FROM, MomentAccumulator
from onnx_lowrank.metrics.moments import DenseMoments, LayerStatistics, RowMoments
from onnx_lowrank.metrics.shrinkage import shrinkage_intensity

EPS = np.finfo(np.float64).eps


def draw(counts: list[int], groups: int, length: int, *, seed: int = 0) -> list[np.ndarray]:
    """Patches of images: correlated within an image, with a mean, float32 values."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((length, length))
    images = []
    for count in counts:
        common = rng.standard_normal((groups, 1, length))
        x = 1.0 + common + rng.standard_normal((groups, count, length)) @ mix
        images.append(x.astype(np.float32).astype(np.float64))
    return images


def accumulate(
    images: list[np.ndarray], weights: list[int], *, dense: bool = True, originals: object = None
) -> LayerStatistics:
    groups, _, length = images[0].shape
    weight = None if originals is None else layer(groups, length)
    sums = MomentAccumulator(groups, length, dense=dense, weight=weight)
    for index, (x, positions) in enumerate(zip(images, weights, strict=True)):
        sums.add(x, positions=positions, original=None if originals is None else originals[index])
    return sums.result()


def layer(groups: int, length: int) -> np.ndarray:
    """The weight of a layer, five outputs a group."""
    return np.random.default_rng(7).standard_normal((5 * groups, length))


def plain_intensity(moments: list[np.ndarray], weights: np.ndarray) -> float:
    """Ledoit and Wolf with every image's matrix at hand, ``(groups, K, K)`` each."""
    total = sum(w * s for w, s in zip(weights, moments, strict=True))
    length = total.shape[-1]
    target = np.trace(total, axis1=1, axis2=2)[:, None, None] / length * np.eye(length)
    spread = sum(w * np.sum((s - total) ** 2) for w, s in zip(weights, moments, strict=True))
    squares = np.sum(weights**2)
    return min(1.0, squares * spread / (1 - squares) / np.sum((total - target) ** 2))


# Images with fewer and with more patches than inputs, of different sizes.
CASES = [([5, 5, 5], 1, 12), ([3, 40, 17, 2], 1, 8), ([4, 9, 6], 3, 5), ([2] * 30, 2, 3)]


@pytest.mark.parametrize(("counts", "groups", "length"), CASES)
def test_moments_and_intensities_follow_their_definitions(
    counts: list[int], groups: int, length: int
) -> None:
    images = draw(counts, groups, length)
    weights = [3 * c + 1 for c in counts]
    found = accumulate(images, weights)
    w = np.array(weights) / sum(weights)
    mean = sum(a * x.mean(axis=1) for a, x in zip(w, images, strict=True))
    second = sum(a * x.swapaxes(1, 2) @ x / x.shape[1] for a, x in zip(w, images, strict=True))
    moments = found.moments
    assert isinstance(moments, DenseMoments)
    assert (found.images, found.samples) == (len(counts), sum(counts))
    # Sums of at most 72 patches in float64, in two orders.
    scale = np.abs(second).max()
    np.testing.assert_allclose(moments.mean, mean, rtol=0, atol=200 * EPS * scale)
    np.testing.assert_allclose(moments.second, second, rtol=0, atol=200 * EPS * scale)
    np.testing.assert_array_equal(moments.second, moments.second.swapaxes(1, 2))
    plain = plain_intensity([x.swapaxes(1, 2) @ x / x.shape[1] for x in images], w)
    centred = []
    for x in images:
        m, mu = x.mean(axis=1)[:, :, None], mean[:, :, None]
        s = x.swapaxes(1, 2) @ x / x.shape[1]
        mt, mut = m.swapaxes(1, 2), mu.swapaxes(1, 2)
        centred.append(s - m @ mut - mu @ mt + mu @ mut)
    # Differences of squared norms: eps times their size over the distance, with a margin of 1000.
    assert found.intensity == pytest.approx(plain, abs=1e-11)
    assert found.centred_intensity == pytest.approx(plain_intensity(centred, w), abs=1e-10)
    squares = sum(a * np.sum((x.mean(axis=1) - mean) ** 2) for a, x in zip(w, images, strict=True))
    noise = np.sum(w**2) * squares / (1 - np.sum(w**2)) if len(counts) > 1 else np.inf
    expected = min(noise / np.sum(mean**2), 1.0)
    assert found.mean_intensity == pytest.approx(expected, abs=1e-10)


def test_a_patch_an_image_gives_the_intensity_of_scikit_learn() -> None:
    x = draw([1] * 25, 1, 10)
    found = accumulate(x, [1] * 25)
    theirs = ledoit_wolf_shrinkage(np.concatenate([i[0] for i in x]), assume_centered=True)
    # Theirs estimates the variance with 1 / n where this one, without bias, has 1 / (n - 1).
    assert found.intensity == pytest.approx(theirs * 25 / 24, rel=1e-10)


def test_blocks_of_a_wide_matrix_are_mirrored() -> None:
    x = draw([7, 7], 1, 1100)
    second = accumulate(x, [1, 1]).moments.second[0]
    np.testing.assert_array_equal(second, second.T)
    # 14 patches are summed in a block of float32.
    assert np.linalg.eigvalsh(second)[0] > -14 * 2.0**-24 * np.trace(second)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_blocks_of_float32_are_as_near_as_their_rounding(asymmetric: bool) -> None:
    counts, weights = [600, 700, 5], [600, 1400, 5]  # the first block is of two images
    images, originals = draw(counts, 1, SINGLE_FROM), draw(counts, 1, SINGLE_FROM, seed=1)
    found = accumulate(images, weights, originals=originals if asymmetric else None)
    assert isinstance(found.moments, DenseMoments)
    rows = np.concatenate([x[0] for x in images])
    each = np.repeat(np.divide(weights, counts) / sum(weights), counts)[:, None]
    exact, size = (each * rows).T @ rows, (each * np.abs(rows)).T @ np.abs(rows)
    # Rows and their scales are rounded, then 1300 products summed.
    assert np.all(np.abs(found.moments.second[0] - exact) <= (1300 + 5) * 2.0**-24 * size)
    assert np.abs(found.moments.second[0] - exact).max() > 0


@pytest.mark.parametrize("asymmetric", [False, True])
def test_rows_and_matrices_tell_the_same(asymmetric: bool) -> None:
    images, originals = draw([2, 1, 3], 1, 40), draw([2, 1, 3], 1, 40, seed=1)
    given = originals if asymmetric else None
    matrices = accumulate(images, [2, 1, 6], originals=given)
    rows = accumulate(images, [2, 1, 6], dense=False, originals=given)
    assert isinstance(rows.moments, RowMoments)
    assert isinstance(matrices.moments, DenseMoments)
    assert rows.intensity == pytest.approx(matrices.intensity, abs=1e-11)
    assert rows.centred_intensity == pytest.approx(matrices.centred_intensity, abs=1e-10)
    assert rows.mean_intensity == pytest.approx(matrices.mean_intensity, abs=1e-11)
    x, w = rows.moments.rows, rows.moments.weights[:, None]
    scale = np.abs(matrices.moments.second).max()
    atol = 100 * EPS * scale
    np.testing.assert_allclose((w * x).T @ x, matrices.moments.second[0], rtol=0, atol=atol)
    np.testing.assert_allclose(rows.moments.mean, matrices.moments.mean, rtol=0, atol=atol)
    if asymmetric:
        assert rows.moments.original_rows is not None
        drift = layer(1, 40) @ (w * (rows.moments.original_rows - x)).T @ x
        # Sums of 40 products with weights below 4.
        np.testing.assert_allclose(drift, matrices.moments.drift[0], rtol=0, atol=160 * atol)
        np.testing.assert_allclose(
            rows.moments.original_mean, matrices.moments.original_mean, rtol=0, atol=atol
        )


def test_the_drift_follows_its_definition() -> None:
    images, originals = draw([4, 9], 2, 6), draw([4, 9], 2, 6, seed=1)
    found = accumulate(images, [4, 9], originals=originals).moments
    x, before = np.concatenate(images, axis=1), np.concatenate(originals, axis=1)
    scale = np.abs(x).max() * np.abs(before).max()
    expected = layer(2, 6).reshape(2, 5, 6) @ (before - x).swapaxes(1, 2) @ x / 13
    # Sums of 6 products with weights below 4, of differences of twice the scale.
    np.testing.assert_allclose(found.drift, expected, rtol=0, atol=48 * 100 * EPS * scale)
    np.testing.assert_allclose(
        found.original_mean, before.mean(axis=1), rtol=0, atol=100 * EPS * scale
    )


def test_inputs_that_agree_do_not_drift() -> None:
    images = draw([4, 9], 2, 6)
    np.testing.assert_array_equal(accumulate(images, [4, 9], originals=images).moments.drift, 0)


def test_the_intensity_falls_as_images_grow() -> None:
    images = draw([6] * 256, 1, 20)
    found = [accumulate(images[:n], [6] * n) for n in (1, 4, 16, 64, 256)]
    for name in ("intensity", "centred_intensity"):
        values = [getattr(f, name) for f in found]
        assert values[0] == 1
        assert all(0 <= v <= 1 for v in values)
        assert values == sorted(values, reverse=True)
        assert values[-1] < 0.1 * values[1]


@pytest.mark.parametrize(
    ("image_norm", "distance", "expected"),
    [(3.0, 1.0, 0.5), (2.0, 1.0, 0.0), (1.9, 1.0, 0.0), (9.0, 1.0, 1.0), (3.0, 0.0, 0.0)],
)
def test_the_intensity_stays_between_0_and_1(
    image_norm: float, distance: float, expected: float
) -> None:
    found = shrinkage_intensity(
        squared_weights=1 / 3, image_norm=image_norm, norm=2.0, distance=distance
    )
    assert found == pytest.approx(expected, abs=4 * EPS)
