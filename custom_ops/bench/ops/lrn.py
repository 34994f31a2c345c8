"""LRN, as the package describes."""

from __future__ import annotations

import numpy as np
from cases import Parts, Pick, Point


def layer(size: int, alpha: float, beta: float, bias: float) -> Parts:
    """Return a layer: it has no weights."""
    return "LRN", ["X"], {}, {"size": size, "alpha": alpha, "beta": beta, "bias": bias}


def layers(rng: np.random.Generator, kernel: tuple[int, ...]) -> list[Parts]:
    """Return layers to test."""
    settings = [(1, 0.75), (3, 0.5), (5, 0.75), (5, 1.0), (7, 0.3)]
    return [layer(size, 0.3, beta, 1.5) for size, beta in settings]


def points() -> list[Point]:
    """Return the layer to time: AlexNet's window."""
    return [{"C": 96, "n": 109, "label": "LRN 96x109x109"}]


def timed(rng: np.random.Generator, point: Point) -> tuple[Parts, None]:
    """Return a point's layer, and None as no Conv does the same."""
    return layer(5, 1e-4, 0.75, 1.0), None


def hostile(pick: Pick, rng: np.random.Generator, kernel: tuple[int, ...]) -> tuple[Parts, int]:
    """Return a layer to make hostile, and its channels."""
    return layer(2 * pick(0, 4) + 1, 0.5, 0.75, 1.0), pick(1, 12)
