"""A model's outputs beside the original's, on the samples of a search."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.measure.score import Outputs
from onnx_lowrank.measure.verification.sqnr import sqnr_of
from onnx_lowrank.types import Array


@dataclass(eq=False)
class ObservedOutputs:
    """A model's outputs beside the original's.

    Attributes
    ----------
    errors, signals : ndarray, shape (batches, parts), float64
        Squared errors, and squares of the original's values, of every float output or part of one.
    ours, theirs : ndarray, shape (N, classes), float64, or None
        Scores that the original and the model give every sample; None where there are no classes.
    outputs : list of Outputs
        The model's outputs for every batch; empty where no user's score needs them.
    """

    errors: Array
    signals: Array
    ours: Array | None = None
    theirs: Array | None = None
    outputs: list[Outputs] = field(default_factory=list)

    def sqnr_db(self, batches: NDArray[np.int64] | None = None) -> float:
        """Return the least SQNR of the outputs or parts, of all batches or of some."""
        every = (self.errors, self.signals)
        errors, signals = (
            (each if batches is None else each[batches]).sum(axis=0) for each in every
        )
        return float(np.min([sqnr_of(*pair) for pair in zip(signals, errors, strict=True)]))

    @property
    def ratio(self) -> float:
        """Squared error over squared signal of the worst output or part; infinite for NaN."""
        errors, signals = self.errors.sum(axis=0), self.signals.sum(axis=0)
        worst = float(np.max(errors / np.maximum(signals, np.finfo(float).tiny)))
        return float("inf") if np.isnan(worst) else worst

    @property
    def noise(self) -> float:
        """Squared error over squared signal of the scores; `ratio` where there are none."""
        if self.ours is None or self.theirs is None:
            return self.ratio
        error = np.sum((self.ours - self.theirs) ** 2)
        return float(error / max(np.sum(self.ours**2), np.finfo(float).tiny))
