"""CPConv, as the package describes."""

from __future__ import annotations

from functools import partial

from cases import Point

from ops import low_rank

layers = partial(low_rank.layers, depthwise=True)
timed = partial(low_rank.timed, depthwise=True)
hostile = partial(low_rank.hostile, depthwise=True)


def points() -> list[Point]:
    """Return the layers to time: some of zfnet512 and VGG-16."""
    found = [
        (low_rank.CONV2, 48, 2, 8),
        (low_rank.CONV2, 48, 2, 6),
        (low_rank.CONV3, 128, 4, 6),
        (low_rank.CONV4, 256, 8, 4),
        (low_rank.CONV4, 1, 1, 752),
    ]
    for layer in low_rank.VGG:  # a quarter of the multiply-adds
        c = layer["C"]
        found.append((layer, 1, 1, round(c * c * 9 / 4 / (c + 9 + c))))
    return [
        {**layer, "ranks": (g, h, k, k), "label": f"outer {g},{h},{k}"} for layer, g, h, k in found
    ]
