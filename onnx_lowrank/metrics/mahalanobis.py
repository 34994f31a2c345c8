"""The diagonal metric: every weight counts by the gradients of the network's output there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.metrics.base import Weight

# Denton et al. add 0.5 to alpha so that no weight is free; here it is relative to alpha's own root
# mean square, which makes it independent of the scale of the gradients.
REGULARISER = 0.5


@dataclass(frozen=True, eq=False)
class Mahalanobis:
    """``sum (alpha * W)^2``: the approximate Mahalanobis metric (Denton et al. 2014, section 3.1).

    Attributes
    ----------
    alpha : ndarray, shape (F, C / group, *kernel), float64
        The importance of each weight, not negative.
    """

    alpha: Weight
    name: str = "mahalanobis"

    @classmethod
    def from_gradients(
        cls, mean_squares: NDArray[np.float64], *, regulariser: float = REGULARISER
    ) -> Mahalanobis:
        """Return the metric of the mean squared gradients by the weights, of any scale.

        Parameters
        ----------
        mean_squares : ndarray, shape (F, C / group, *kernel), float64
            Not negative; where all are zero, all weights count alike.
        regulariser : float
            What is added to alpha after it was scaled to a root mean square of one.
        """
        scale = float(np.sqrt(mean_squares.mean()))
        alpha = np.sqrt(mean_squares) / scale if scale > 0 else np.ones_like(mean_squares)
        return cls(alpha + regulariser)

    def squared_norm(self, weight: Weight) -> float:
        """Return the weighted sum of squares of a weight, ``(F, C / group, *kernel)``."""
        scaled = self.alpha * weight
        return float(np.vdot(scaled, scaled))

    def apply(self, weight: Weight) -> Weight:
        """Return ``alpha^2 * W``."""
        return self.alpha**2 * weight

    def output_weights(self) -> NDArray[np.float64]:
        """Return the mean of ``alpha^2`` over each output's weights, shape (F,), their mean one.

        They are the output weights of a `Covariance` that combines both metrics; all ones where
        alpha is zero.
        """
        means = np.asarray(np.mean(self.alpha.reshape(len(self.alpha), -1) ** 2, axis=1))
        total = float(means.mean())
        return means / total if total > 0 else np.ones_like(means)
