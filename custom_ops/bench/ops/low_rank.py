"""What the modules of CPConv and Tucker2Conv share."""

from __future__ import annotations

import numpy as np
from cases import Arrays, Parts, Pick, Point, conv, outputs, weight

CONV2, CONV3, CONV4 = (
    conv(96, 256, 5, 2, 55, 0),
    conv(256, 512, 3, 1, 12, 1),
    conv(512, 1024, 3, 1, 12, 1),
)
VGG = [conv(64, 64, 3, 1, 224, 1), conv(256, 256, 3, 1, 56, 1), conv(512, 512, 3, 1, 28, 1)]


def blocks(
    rng: np.random.Generator,
    *,
    depthwise: bool,
    channels: int,
    filters: int,
    groups: tuple[int, int],
    ranks: tuple[int, int],
    kernel: tuple[int, ...],
) -> Parts:
    """Return a CPConv or a Tucker2Conv with random weights."""
    ones = (1,) * len(kernel)
    (g, h), (k1, k2) = groups, ranks
    order = np.arange(g * h * k2).reshape(g, h, k2).transpose(1, 0, 2).ravel()
    constants: Arrays = {
        "input_order": rng.permutation(channels).astype(np.int64),
        "A": weight(rng, (g * h * k1, channels // g, *ones)),
        "depthwise" if depthwise else "core": weight(
            rng, (g * h * k2, 1 if depthwise else k1, *kernel)
        ),
        "middle_order": order.astype(np.int64),
        "B": weight(rng, (filters, g * k2, *ones)),
        "bias": weight(rng, (filters,)),
        "output_order": rng.permutation(filters).astype(np.int64),
    }
    attributes = {"input_groups": g, "output_groups": h}
    attributes["channels" if depthwise else "blocks"] = g * h * k2 if depthwise else g * h
    return "CPConv" if depthwise else "Tucker2Conv", ["X", *constants], constants, attributes


def layers(rng: np.random.Generator, kernel: tuple[int, ...], *, depthwise: bool) -> list[Parts]:
    """Return layers of 6 channels to test."""
    structures = [((1, 1), (5, 7)), ((1, 1), (9, 17)), ((3, 2), (4, 9)), ((2, 3), (17, 3))]
    return [
        blocks(
            rng,
            depthwise=depthwise,
            channels=6,
            filters=12,
            groups=groups,
            ranks=(k2, k2) if depthwise else (k1, k2),
            kernel=kernel,
        )
        for groups, (k1, k2) in structures
    ]


def timed(rng: np.random.Generator, point: Point, *, depthwise: bool) -> tuple[Parts, float]:
    """Return a point's layer and its multiply-adds."""
    c, f, k, n = (point[key] for key in "CFkn")
    g, h, k1, k2 = point["ranks"]
    parts = blocks(
        rng,
        depthwise=depthwise,
        channels=c,
        filters=f,
        groups=(g, h),
        ranks=(k1, k2),
        kernel=(k, k),
    )
    middle = k1 * k * k if depthwise else k1 * k2 * k * k
    m = outputs(point)
    return parts, g * h * (c // g * k1 * n * n + middle * m + k2 * (f // h) * m)


def hostile(
    pick: Pick, rng: np.random.Generator, kernel: tuple[int, ...], *, depthwise: bool
) -> tuple[Parts, int]:
    """Return a layer to make hostile, and its channels."""
    groups, rank = (pick(1, 3), pick(1, 3)), pick(1, 12)
    channels = groups[0] * pick(1, 5)
    parts = blocks(
        rng,
        depthwise=depthwise,
        channels=channels,
        filters=groups[1] * pick(1, 5),
        groups=groups,
        ranks=(rank if depthwise else pick(1, 12), rank),
        kernel=kernel,
    )
    return parts, channels
