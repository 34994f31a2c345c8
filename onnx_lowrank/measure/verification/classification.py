"""Streaming comparison of two classifiers on the same samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.errors import DataError
from onnx_lowrank.measure.verification.classifier import are_probabilities, centred_logits
from onnx_lowrank.measure.verification.sqnr import sqnr_of

CONFIDENCE = 0.95


class Classification:
    """Whether two classifiers choose the same classes, and the right ones."""

    def __init__(self) -> None:
        self.samples = 0
        self._top1 = 0
        self._top5 = 0
        self._labelled = 0
        self._both = self._first = self._second = 0
        self._chosen = self._wanted = np.zeros(0, np.int64)
        self._probabilities = False
        self._shift: Any = None
        self._sum: Any = 0.0
        self._squares = self._error = 0.0

    def fits(self, scores: NDArray[Any], samples: int) -> bool:
        """Whether an output is one row for each sample, of as many classes as before."""
        return len(scores) == samples and (
            not self.samples or scores.size == samples * len(self._chosen)
        )

    def add(
        self,
        original: NDArray[np.floating[Any]],
        compressed: NDArray[np.floating[Any]],
        labels: NDArray[np.int64] | None,
    ) -> None:
        """Compare the scores of one batch, both ``[N, classes]``; labels ``[N]`` or None.

        Raises
        ------
        DataError
            A label is not below the number of classes.
        """
        classes = original.shape[1]
        if labels is not None and labels.max(initial=0) >= classes:
            raise DataError(
                f"label {labels.max()} is out of range: the model has {classes} classes, "
                f"0 to {classes - 1}; check the labels"
            )
        if not self.samples:
            self._chosen = self._wanted = np.zeros(classes, np.int64)
            self._probabilities = are_probabilities(original)
        a, b = original.argmax(axis=1), compressed.argmax(axis=1)
        five = np.argsort(-compressed, axis=1, kind="stable")[:, :5]
        self.samples += len(a)
        self._top1 += int(np.count_nonzero(a == b))
        self._top5 += int(np.count_nonzero((five == a[:, None]).any(axis=1)))
        self._chosen = self._chosen + np.bincount(a, minlength=classes)
        self._add_scores(original, compressed)
        if labels is not None:
            right_a, right_b = a == labels, b == labels
            self._labelled += len(a)
            self._both += int(np.count_nonzero(right_a & right_b))
            self._first += int(np.count_nonzero(right_a & ~right_b))
            self._second += int(np.count_nonzero(~right_a & right_b))
            self._wanted = self._wanted + np.bincount(labels, minlength=classes)

    def _add_scores(self, original: NDArray[Any], compressed: NDArray[Any]) -> None:
        ours, theirs = (
            centred_logits(each, probabilities=self._probabilities)
            for each in (original, compressed)
        )
        if self._shift is None:  # near the mean: squares of large scores would hide the variation
            self._shift = ours[0].copy()
        varying = ours - self._shift
        self._sum = self._sum + varying.sum(axis=0)
        with np.errstate(over="ignore", invalid="ignore"):  # sums that overflow are no figures
            self._squares += float(np.square(varying).sum())
            self._error += float(np.square(theirs - ours).sum())

    def agreement(self) -> dict[str, Any]:
        """Return how often the original's first class is the other's first, or in its first 5.

        Of 5 classes or fewer, the first 5 are all: that is no figure, and None.
        """
        return {
            "top1": self._top1 / self.samples,
            "top5": self._top5 / self.samples if len(self._chosen) > 5 else None,
        }

    @property
    def common(self) -> float:
        """Share of the samples that the original puts into its most frequent class.

        A model that always answers with that class has this top-1 agreement.
        """
        return float(self._chosen.max() / self.samples)

    @property
    def common_label(self) -> float:
        """Share of the most frequent label: the accuracy of a model that always answers with it."""
        return float(self._wanted.max() / max(self._labelled, 1))

    @property
    def varying_sqnr_db(self) -> float:
        """How well what the scores say of single samples is kept, in dB.

        ``10 log10(sum |a - mean(a)|^2 / sum |b - a|^2)``, of centred logits and their mean over the
        samples: 0 dB for a model whose answer is always that mean; NaN where it is not finite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            variation = self._squares - float(np.square(self._sum).sum()) / self.samples
        return sqnr_of(max(variation, 0.0), self._error)

    def top1_interval(self) -> tuple[float, float]:
        """Return the Wilson score interval of the top-1 agreement at `CONFIDENCE`."""
        return wilson_interval(self._top1, self.samples)

    def accuracy(self) -> dict[str, Any]:
        """Return both accuracies and their difference in points; empty without labels."""
        n = self._labelled
        if not n:
            return {}
        neither = n - self._both - self._first - self._second
        low, high = paired_interval(self._both, self._first, self._second, neither)
        return {
            "original": (self._both + self._first) / n,
            "compressed": (self._both + self._second) / n,
            "drop_points": 100 * (self._first - self._second) / n,
            "drop_interval": [100 * low, 100 * high],
            "confidence": CONFIDENCE,
            "samples": n,
        }


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the Wilson (1927) score interval of a proportion at `CONFIDENCE`, within 0 and 1."""
    from scipy.stats import binomtest  # slow to import, and not every command has a proportion

    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def paired_interval(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    """Return the interval of the difference of two proportions measured on the same samples.

    Newcombe's hybrid of the two Wilson intervals with the samples' correlation (Statistics in
    Medicine 17, 1998, method 10).

    Parameters
    ----------
    both, first, second, neither : int
        Number of samples on which both, only the first, only the second, neither succeeded.
    """
    n = both + first + second + neither
    p, q = (both + first) / n, (both + second) / n
    p_low, p_high = wilson_interval(both + first, n)
    q_low, q_high = wilson_interval(both + second, n)
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    covariance = float(both * neither - first * second)
    if covariance > 0:
        covariance = max(covariance - n / 2, 0.0)
    phi = covariance / math.sqrt(margins) if margins else 0.0

    def spread(x: float, y: float) -> float:
        return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

    return p - q - spread(p - p_low, q_high - q), p - q + spread(p_high - p, q - q_low)
