"""The Frobenius metric: every weight counts alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Frobenius:
    """``|W|^2``, the sum of squares."""

    name: str = "frobenius"

    def squared_norm(self, weight: NDArray[np.float64]) -> float:
        """Return the sum of squares of a weight of any shape."""
        return float(np.vdot(weight, weight))
