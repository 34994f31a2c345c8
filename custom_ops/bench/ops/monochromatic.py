"""MonochromaticConv, as the package describes."""

from __future__ import annotations

import numpy as np
from cases import Arrays, Parts, Pick, Point, conv, outputs, weight


def layer(
    rng: np.random.Generator, *, channels: int, filters: int, colours: int, kernel: tuple[int, ...]
) -> Parts:
    """Return a layer with random weights."""
    ones = (1,) * len(kernel)
    constants: Arrays = {
        "colours": weight(rng, (colours, channels, *ones)),
        "filters": weight(rng, (filters, 1, *kernel)),
        "bias": weight(rng, (filters,)),
        "order": rng.permutation(filters).astype(np.int64),
    }
    return "MonochromaticConv", ["X", *constants], constants, {"colours": colours}


def layers(rng: np.random.Generator, kernel: tuple[int, ...]) -> list[Parts]:
    """Return layers of 6 channels to test."""
    return [
        layer(rng, channels=6, filters=f, colours=c, kernel=kernel)
        for c, f in ((2, 6), (3, 51), (1, 5), (7, 14))
    ]


def points() -> list[Point]:
    """Return the layers to time: the first ones of zfnet512 and VGG-16."""
    conv1, vgg1 = conv(3, 96, 7, 2, 224, 1), conv(3, 64, 3, 1, 224, 1)
    return [{**conv1, "colours": c, "label": f"mono {c}"} for c in (4, 6, 8, 12, 16)] + [
        {**vgg1, "colours": c, "label": f"mono {c}"} for c in (4, 8)
    ]


def timed(rng: np.random.Generator, point: Point) -> tuple[Parts, float]:
    """Return a point's layer and its multiply-adds."""
    c, f, k, n, colours = (point[key] for key in ("C", "F", "k", "n", "colours"))
    parts = layer(rng, channels=c, filters=f, colours=colours, kernel=(k, k))
    return parts, colours * c * n * n + k * k * f * outputs(point)


def hostile(pick: Pick, rng: np.random.Generator, kernel: tuple[int, ...]) -> tuple[Parts, int]:
    """Return a layer to make hostile, and its channels."""
    channels, colours = pick(1, 6), pick(1, 4)
    filters = colours * pick(1, 9)
    return layer(rng, channels=channels, filters=filters, colours=colours, kernel=kernel), channels
