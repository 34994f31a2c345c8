"""Tucker2Conv, as the package describes."""

from __future__ import annotations

from functools import partial

from cases import Point

from ops import low_rank

layers = partial(low_rank.layers, depthwise=False)
timed = partial(low_rank.timed, depthwise=False)
hostile = partial(low_rank.hostile, depthwise=False)


def points() -> list[Point]:
    """Return the layers to time: some of zfnet512 and VGG-16."""
    found = [
        (low_rank.CONV2, (2, 2, 19, 64)),
        (low_rank.CONV2, (2, 2, 16, 64)),
        (low_rank.CONV3, (2, 4, 51, 51)),
    ]
    for layer in low_rank.VGG:
        found += [(layer, (1, 1, layer["C"] // r, layer["C"] // r)) for r in (4, 2)]
    return [
        {**layer, "ranks": ranks, "label": "svd " + ",".join(map(str, ranks))}
        for layer, ranks in found
    ]
