"""Fashion-MNIST in colour: the labelled images on which accuracy is measured in points.

The data set is grey. Colours are given to it at random, without a look at the labels, so that a
first layer has three real channels to work on and so that no colour tells a class.
"""

from __future__ import annotations

import datasets
import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]

# How many of the 60,000 training images go to each split; the 10,000 of the test set are `test`.
SIZES = {"train": 50_000, "calibration": 5_000, "validation": 5_000}
SPLITS = (*SIZES, "test")
SIDE = 28
SEED = 20_140_404

# Between foreground and background, as a distance in the RGB cube of side 1: below, an object is
# lost in the noise.
CONTRAST = 0.5
WAVE = 0.05
NOISE = 0.03
CHUNK = 1024


def load(split: str, *, side: int = SIDE) -> tuple[Images, npt.NDArray[np.int64]]:
    """Return the coloured images of a split and their labels; always the same ones.

    Parameters
    ----------
    split : str
        One of `SPLITS`. A seeded permutation of the training images is cut, in the order of
        `SIZES`; the test images keep their order.
    side : int
        28, or 56 for images enlarged before they are coloured. The colours are the same at both.

    Returns
    -------
    images : numpy.ndarray
        uint8, N x 3 x side x side, RGB.
    labels : numpy.ndarray
        int64, N, 0 to 9.

    Raises
    ------
    FetchError
        The data set cannot be obtained.
    """
    if side not in (SIDE, 2 * SIDE):
        raise ValueError(f"side is {side}, must be {SIDE} or {2 * SIDE}")
    file = "test.npz" if split == "test" else "train.npz"
    with np.load(datasets.dataset("fashion-mnist") / file) as arrays:
        grey, labels = arrays["images"], arrays["labels"]
    if split != "test":
        chosen = indices()[split]
        grey, labels = grey[chosen], labels[chosen]
    if side != SIDE:
        grey = enlarge(grey)
    return colour(grey, np.random.default_rng([SEED, SPLITS.index(split)])), labels


def indices() -> dict[str, npt.NDArray[np.int64]]:
    """Return, by split, the positions of its images in the training set: disjoint, all of it."""
    order = np.random.default_rng(SEED).permutation(sum(SIZES.values()))
    ends = np.cumsum(list(SIZES.values()))
    return dict(zip(SIZES, np.split(order, ends[:-1]), strict=True))


def normalise(images: Images) -> npt.NDArray[np.float32]:
    """Return what the networks read: ``(RGB / 255 - 0.5) / 0.25``, float32, -2 to 2."""
    values = images.astype(np.float32)
    values *= np.float32(4 / 255)
    values -= np.float32(2)
    return values


def vary(values: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return normalised images under random symmetries of their distribution, for training.

    Each image has its three channels permuted, each channel negated or not, and is mirrored left to
    right or not. The colours are uniform in a cube, so the results are as likely as the originals;
    clothes are the same garment in a mirror.

    Parameters
    ----------
    values : numpy.ndarray
        float32, N x 3 x H x W, symmetric about 0.
    rng : numpy.random.Generator
        Drawn from.
    """
    count = len(values)
    channels = rng.permuted(np.tile(np.arange(3), (count, 1)), axis=1)
    signs = rng.choice(np.array([-1, 1], np.float32), (count, 3, 1, 1))
    result: npt.NDArray[np.float32] = values[np.arange(count)[:, None], channels] * signs
    mirrored = rng.random(count) < 0.5
    result[mirrored] = result[mirrored, :, :, ::-1]
    return result


def enlarge(grey: Images) -> Images:
    """Return the images at twice the side, bilinear with the pixels' centres kept (N x H x W)."""
    values = grey.astype(np.float32)
    for axis in (1, 2):
        size = values.shape[axis]
        before = values.take(np.maximum(np.arange(size) - 1, 0), axis)
        after = values.take(np.minimum(np.arange(size) + 1, size - 1), axis)
        # An output pixel lies a quarter pixel off the centre of the input pixel it is part of.
        pair = (0.75 * values + 0.25 * before, 0.75 * values + 0.25 * after)
        shape = list(values.shape)
        shape[axis] *= 2
        values = np.stack(pair, axis + 1).reshape(shape)
    return np.rint(values).astype(np.uint8)


def colour(grey: Images, rng: np.random.Generator) -> Images:
    """Return grey images in colour.

    Every image gets a foreground and a background colour, uniform in the RGB cube but at least
    `CONTRAST` apart, and is the blend of the two by its grey value; a plane wave of random
    direction, frequency and colour, and white noise in every channel, are added, so that the
    colours of a small patch are not all on one line. No random number depends on the grey values.

    Parameters
    ----------
    grey : numpy.ndarray
        uint8, N x H x W, 0 (background) to 255 (foreground).
    rng : numpy.random.Generator
        Drawn from: first the colours, then the waves, then the noise, image by image.

    Returns
    -------
    numpy.ndarray
        uint8, N x 3 x H x W, RGB.
    """
    count, height, width = map(int, grey.shape)
    foreground, background = _colours(count, rng)
    tint = WAVE * rng.standard_normal((count, 3), dtype=np.float32)
    # Cycles per image along its sides.
    angle = rng.uniform(0, 2 * np.pi, count)
    length = rng.uniform(2, 6, count)
    frequency = np.stack([length * np.sin(angle), length * np.cos(angle)])
    start = rng.random(count)
    rows, columns = np.arange(height) / height, np.arange(width) / width

    result = np.empty((count, 3, height, width), np.uint8)
    for first in range(0, count, CHUNK):
        part = slice(first, first + CHUNK)
        cycles = (
            start[part, None, None]
            + frequency[0, part, None, None] * rows[:, None]
            + frequency[1, part, None, None] * columns
        )
        wave = np.sin(2 * np.pi * cycles).astype(np.float32)
        share = grey[part, None].astype(np.float32) / 255
        ends = [value[part, :, None, None] for value in (foreground, background, tint)]
        values = ends[1] + share * (ends[0] - ends[1]) + ends[2] * wave[:, None]
        values += NOISE * rng.standard_normal(values.shape, dtype=np.float32)
        result[part] = np.rint(255 * values.clip(0, 1))
    return result


def _colours(
    count: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the foreground and background colours, each `count` x 3, 0 to 1."""
    pairs = rng.random((count, 2, 3), dtype=np.float32)
    while True:
        near = np.linalg.norm(pairs[:, 0] - pairs[:, 1], axis=1) < CONTRAST
        if not near.any():
            return pairs[:, 0], pairs[:, 1]
        pairs[near] = rng.random((np.count_nonzero(near), 2, 3), dtype=np.float32)
