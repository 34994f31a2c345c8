"""The role of a metric: an inner product on weights."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Weight = NDArray[np.float64]


class Metric(Protocol):
    """An inner product ``<A, B> = sum(A * apply(B))`` on the weights of one layer.

    The form is symmetric and positive semi-definite. A fit that needs no more than products with it
    works in any metric.
    """

    @property
    def name(self) -> str:
        """The name a user calls the metric by."""
        ...

    def squared_norm(self, weight: Weight) -> float:
        """Return the squared norm of a weight, ``(F, C / group, *kernel)``."""
        ...

    def apply(self, weight: Weight) -> Weight:
        """Return the gradient of half the squared norm, of the shape of `weight`."""
        ...
