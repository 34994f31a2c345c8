"""Values of factors that no fit has made: for timing, for tests, and to know shapes.

A generator gives random ones. None gives zeros that take no memory, and clusters in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Random = np.random.Generator | None


def uniform(rng: Random, shape: Sequence[int]) -> NDArray[np.float64]:
    """Return values of both signs that keep activations of unit size.

    None is near zero: products in a chain of stages stay far from denormals, which run slower.
    """
    if rng is None:
        return np.broadcast_to(0.0, shape)
    fan_in = max(int(np.prod(shape[1:])), 1)
    magnitude = rng.uniform(0.5, 1.5, shape) / np.sqrt(fan_in)
    return np.asarray(magnitude * rng.choice([-1.0, 1.0], shape))


def shuffled(rng: Random, values: NDArray[Any]) -> NDArray[Any]:
    """Return values in random order, as clusters of a fit are: channels in order save a Gather."""
    return values if rng is None else rng.permutation(values)


def clusters(rng: Random, channels: int, count: int) -> NDArray[np.int64]:
    """Return clusters of one size, ``(count, channels / count)``, each in rising order."""
    order = np.arange(channels)
    order = order if count == 1 else shuffled(rng, order)
    return np.sort(order.reshape(count, -1), axis=1).astype(np.int64)
