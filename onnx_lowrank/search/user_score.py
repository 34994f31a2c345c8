"""A user's score of whole models."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.cache import key_of
from onnx_lowrank.measure.score import OutputRows, Outputs, Score
from onnx_lowrank.search.prediction import MeanPredictor


class UserScore:
    """A user's score of models, beside that of the original."""

    def __init__(self, score: Score, reference: Outputs, labels: NDArray[np.int64] | None) -> None:
        self._score = score
        self._reference = reference
        self._labels = labels
        self._base = self._of(reference, None)
        # What the original gets distinguishes versions of a score that have the same source.
        self.digest = key_of(score.digest or uuid4().hex, self._base)

    def drop(self, outputs: Outputs) -> float:
        """Return what is lost on all samples."""
        return self._base - self._of(outputs, None)

    def predictor(self, outputs: Outputs) -> MeanPredictor | None:
        """Return what predicts the loss on other samples from these."""

        def drop(places: NDArray[np.int64]) -> float:
            return self._of(self._reference, places) - self._of(outputs, places)

        samples = len(next(iter(outputs.values())))
        return MeanPredictor.of("score", samples, drop)

    def _of(self, outputs: Outputs, places: NDArray[np.int64] | None) -> float:
        if places is None:
            return self._score(outputs, self._reference, self._labels)
        some, reference = (
            {name: value[places] for name, value in each.items()}
            for each in (outputs, self._reference)
        )
        return self._score(some, reference, None if self._labels is None else self._labels[places])


def rows_of(batches: Sequence[Outputs], samples: Sequence[int]) -> Outputs:
    """Return the outputs of all batches as one, of so many samples each."""
    rows = OutputRows()
    for outputs, count in zip(batches, samples, strict=True):
        rows.add(outputs, count)
    return rows.result()
