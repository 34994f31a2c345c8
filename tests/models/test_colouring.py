from __future__ import annotations

import inspect
from itertools import permutations, product

import colouring
import numpy as np
import pytest


def flat(value: int, count: int = 200, side: int = 28) -> colouring.Images:
    return np.full((count, side, side), value, np.uint8)


def generator() -> np.random.Generator:
    return np.random.default_rng(3)


def grey_images(count: int) -> colouring.Images:
    return np.random.default_rng(5).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def test_colours_are_drawn_by_seed_and_position_alone() -> None:
    # Empty and full images show the background and the foreground; with other contents between
    # them, labels could only matter through the grey values, and those change no random number.
    background, foreground = (colouring.colour(flat(v), generator()) for v in (0, 255))
    grey = grey_images(200)
    grey[:, :4], grey[:, -4:] = 0, 255
    mixed = colouring.colour(grey, generator())
    np.testing.assert_array_equal(mixed[:, :, :4], background[:, :, :4])
    np.testing.assert_array_equal(mixed[:, :, -4:], foreground[:, :, -4:])
    assert list(inspect.signature(colouring.colour).parameters) == ["grey", "rng"]


def test_the_seed_alone_decides() -> None:
    grey = grey_images(5)
    first = colouring.colour(grey, generator())
    np.testing.assert_array_equal(colouring.colour(grey, generator()), first)
    other = colouring.colour(grey, np.random.default_rng(4))
    assert np.abs(other.astype(int) - first).mean() > 20
    np.testing.assert_array_equal(grey, grey_images(5))


def test_parts_are_coloured_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = colouring.colour(grey_images(10), generator())
    monkeypatch.setattr(colouring, "CHUNK", 4)
    np.testing.assert_array_equal(colouring.colour(grey_images(10), generator()), whole)


def test_foreground_and_background_differ_and_fill_the_cube() -> None:
    count = 2000
    ends = [
        colouring.colour(flat(v, count, 16), generator()).mean(axis=(2, 3)) / 255 for v in (0, 255)
    ]
    # Clipping at the faces of the cube moves the mean of an image by at most the mean excursion.
    slack = 3 * (colouring.WAVE + colouring.NOISE)
    distance = np.linalg.norm(ends[0] - ends[1], axis=1)
    assert distance.min() > colouring.CONTRAST - 2 * slack
    for end in ends:
        # Uniform on 0 to 1: mean 1/2, deviation 0.29 (the rule on contrast favours the faces a
        # little), uncorrelated channels. Standard errors at 2000 images: 0.007, 0.005 and 0.022.
        np.testing.assert_allclose(end.mean(axis=0), 0.5, atol=0.03)
        np.testing.assert_allclose(end.std(axis=0), 0.30, atol=0.03)
        correlation = np.corrcoef(end.T) - np.eye(3)
        assert np.abs(correlation).max() < 0.1


def test_colours_of_a_small_patch_are_not_on_one_line() -> None:
    image = colouring.colour(flat(128, count=50), generator()).astype(np.float64) / 255
    patches = image[:, :, 10:17, 10:17].reshape(50, 3, 49)
    spread = np.array([np.linalg.eigvalsh(np.cov(patch)) for patch in patches])
    # White noise alone puts this much variance on every axis; clipping at the faces may halve it,
    # and the smallest of three eigenvalues from 49 pixels lies lower.
    assert np.median(spread[:, 0]) > colouring.NOISE**2 / 4


def test_enlarging_is_bilinear() -> None:
    ramp = np.tile(np.arange(0, 112, 4, dtype=np.uint8), (1, 28, 1))
    large = colouring.enlarge(ramp)[0]
    assert large.shape == (56, 56)
    # Inside, a ramp of 4 a pixel becomes one of 2, centred: -1 and +1 about each old pixel.
    np.testing.assert_array_equal(large[:, 1:-1], np.tile(np.arange(1, 109, 2), (56, 1)))
    np.testing.assert_array_equal(colouring.enlarge(flat(7, count=2)), flat(7, 2, 56))
    np.testing.assert_array_equal(
        colouring.enlarge(ramp.transpose(0, 2, 1)), large.T[None]
    )  # both axes alike


def test_normalised_range() -> None:
    values = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    found = colouring.normalise(values)
    assert found.dtype == np.float32
    # 255 times the rounded 4/255 is off 4 by at most one rounding of each: 4 eps.
    assert np.abs(found.ravel() - [-2, 2]).max() <= 4 * np.finfo(np.float32).eps


def test_variations_are_the_symmetries_of_the_colour_cube() -> None:
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2) - 5.5
    before = image.copy()
    varied = colouring.vary(np.repeat(image, 3000, axis=0), generator())
    np.testing.assert_array_equal(image, before)
    expected = {
        (image[0, list(order)] * np.reshape(signs, (3, 1, 1)))[:, :, ::step].tobytes()
        for order in permutations(range(3))
        for signs in product(np.array([-1, 1], np.float32), repeat=3)
        for step in (1, -1)
    }
    assert len(expected) == 96
    # 3000 draws miss one of 96 with a probability of 96 * (95/96)^3000, about 1e-12.
    assert {one.tobytes() for one in varied} == expected


def test_splits_cut_the_training_set_and_stay_as_they_are() -> None:
    parts = colouring.indices()
    assert {name: len(part) for name, part in parts.items()} == colouring.SIZES
    everything = np.concatenate(list(parts.values()))
    np.testing.assert_array_equal(np.sort(everything), np.arange(60_000))
    for name, part in colouring.indices().items():
        np.testing.assert_array_equal(part, parts[name])


def test_another_side_is_refused() -> None:
    with pytest.raises(ValueError, match="side is 32, must be 28 or 56"):
        colouring.load("test", side=32)


@pytest.mark.network
@pytest.mark.slow
def test_a_split_is_the_same_images_at_both_sides() -> None:
    small, labels = colouring.load("calibration")
    large, same = colouring.load("calibration", side=56)
    assert small.shape == (5_000, 3, 28, 28)
    assert large.shape == (5_000, 3, 56, 56)
    np.testing.assert_array_equal(labels, same)
    assert np.bincount(labels).min() > 400  # of about 500 each
    # The same colours: the mean colours of an image differ by the noise and by clipping only.
    difference = small.mean(axis=(2, 3)) - large.mean(axis=(2, 3))
    assert np.abs(difference).max() < 255 * colouring.NOISE


@pytest.mark.network
@pytest.mark.slow
def test_mean_colours_do_not_tell_the_class() -> None:
    images, labels = colouring.load("test")
    corner = images[:, :, :2, :2].mean(axis=(2, 3)) / 255  # background in nearly every image
    means = np.array([corner[labels == label].mean(axis=0) for label in range(10)])
    # 1,000 images a class: standard error 0.3 / sqrt(1000) = 0.0095; 30 values within 4 of them.
    np.testing.assert_allclose(means, 0.5, atol=4 * 0.3 / np.sqrt(1000))
