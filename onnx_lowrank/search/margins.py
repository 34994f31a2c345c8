"""How many samples change sides in a classifier: counted, and estimated from their margins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from onnx_lowrank.search.prediction import DRAWS, design_effect
from onnx_lowrank.types import Array

# How many times more samples change sides than margins predict, as a Gamma distribution of this
# mean and shape: models/RESULTS.md, "all trained networks", has .60 to 1.33 where ten and more
# changed; VGG-16 had up to 2.2, 5 of 72, as samples near a border tend to have the larger errors.
MORE, SHAPE = 1.4, 4.0
# Where too few samples are near a border, those at up to so many times that distance count, each as
# less: the density of margins is about the same there.
WIDTHS = (1, 2, 4, 8, 16)
_ENOUGH = 0.35  # relative standard error at which no more are looked for
_LEAST_SPREAD = 0.1  # of the median: no sample's error counts as known any better


@dataclass(frozen=True)
class Margins:
    """Samples that change sides.

    Counts of few samples say little, as one sample may be more than a budget allows. The distance
    of every sample from its border, in units of the errors measured, says more.

    Attributes
    ----------
    samples : int
        Number of samples.
    lost, gained : int
        How many changed, counted.
    expected_lost, expected_gained : float
        How many would, with Gaussian errors of the margins as large as those measured.
    error : float
        Standard error of the expected numbers, as a share.
    design : float
        As of `design_effect`.
    """

    samples: int
    lost: int
    gained: int
    expected_lost: float
    expected_gained: float
    error: float
    design: float

    @classmethod
    def of(cls, ours: Array, theirs: Array, wanted: NDArray[np.int64]) -> Margins:
        """Compare the scores of a model with those of the original.

        Parameters
        ----------
        ours, theirs : ndarray, shape (N, classes), float64
            Centred logits of the original and of the model.
        wanted : ndarray, shape (N,), int64
            The right class of every sample.
        """
        before, after = _margins(ours, wanted), _margins(theirs, wanted)
        right, still = ours.argmax(axis=1) == wanted, theirs.argmax(axis=1) == wanted
        spread = np.sqrt(np.mean((ours - theirs) ** 2, axis=1))
        chances, error, design = np.zeros(len(before)), 0.0, 1.0
        if spread.any():
            # A common factor of all margins changes no side: what is left is the error.
            spread = np.maximum(spread, _LEAST_SPREAD * float(np.median(spread[spread > 0])))
            x, y = before / spread, after / spread
            factor = max(float(x @ y) / max(float(x @ x), np.finfo(float).tiny), 0.0)
            scale = float(np.sqrt(np.mean((y - factor * x) ** 2)))
            for width in WIDTHS if scale > 0 else ():
                chances = ndtr(-factor * np.abs(x) / (width * scale)) / width
                design, mean = design_effect(chances), float(chances.mean())
                if mean > 0:
                    error = float(np.std(chances) * np.sqrt(design / len(chances))) / mean
                if mean > 0 and error <= _ENOUGH:
                    break
        return cls(
            samples=len(before),
            lost=int(np.count_nonzero(right & ~still)),
            gained=int(np.count_nonzero(~right & still)),
            expected_lost=float(chances[right].sum()),
            expected_gained=float(chances[~right].sum()),
            error=error,
            design=design,
        )

    @property
    def drop(self) -> float:
        """Points lost, counted."""
        return 100 * (self.lost - self.gained) / self.samples

    @property
    def expected_drop(self) -> float:
        """Points lost, expected."""
        return 100 * (self.expected_lost - self.expected_gained) / self.samples

    def chance(self, most: float, samples: int) -> float:
        """Return the probability that so many other samples lose at most some points.

        How many times more samples change sides than the margins predict is uncertain; what was
        counted makes it known better, the better the more samples there are (Gamma and Poisson
        distributions, by draws).
        """
        rng = np.random.default_rng(0)
        shape = 1 / (1 / SHAPE + self.error**2)
        count = max(round(samples / self.design), 1)
        drawn = []
        for counted, expected in (
            (self.lost, self.expected_lost),
            (self.gained, self.expected_gained),
        ):
            if counted and not expected:
                return 0.0  # the margins do not explain what happened
            rate = shape / MORE + expected / self.design
            more = rng.gamma(shape + counted / self.design, 1 / rate, DRAWS)
            drawn.append(rng.poisson(np.minimum(more * expected / self.samples, 1) * count))
        lost, gained = drawn
        # Float arithmetic must not turn a loss of exactly so many points into more.
        return float(np.mean(100 * (lost - gained) / count <= most + 1e-9))


def _margins(scores: Array, wanted: NDArray[np.int64]) -> Array:
    """Return by how much the right class leads, ``(N,)``; negative where it does not."""
    rows = np.arange(len(scores))
    others = scores.copy()
    others[rows, wanted] = -np.inf
    return np.asarray(scores[rows, wanted] - others.max(axis=1))
