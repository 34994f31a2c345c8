"""The role of a metric: an inner product on weights."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Metric(Protocol):
    """An inner product on the weights of one layer, as a quadratic form."""

    name: str

    def squared_norm(self, weight: NDArray[np.float64]) -> float:
        """Return the squared norm of a weight, ``(F, C, *kernel)``."""
        ...
