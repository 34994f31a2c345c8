"""The Frobenius metric: every weight counts alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_lowrank.metrics.base import Weight


@dataclass(frozen=True)
class Frobenius:
    """``|W|^2``, the sum of squares."""

    name: str = "frobenius"

    def squared_norm(self, weight: Weight) -> float:
        """Return the sum of squares of a weight of any shape."""
        return float(np.vdot(weight, weight))

    def apply(self, weight: Weight) -> Weight:
        """Return a copy of the weight: the form is the identity."""
        return weight.copy()
