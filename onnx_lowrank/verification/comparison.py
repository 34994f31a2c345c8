"""Streaming statistics of two arrays that should be equal, and of two classifiers."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.errors import DataError

SQNR_CAP_DB = 300.0
"""Equal outputs have no finite signal-to-error ratio: every ratio is reported within this bound."""
CONFIDENCE = 0.95


class OutputStatistics:
    """Errors of one output, accumulated in float64.

    Parameters
    ----------
    name : str
        The output's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._float = True
        self._entries = 0
        self._equal = 0
        self._max_abs = 0.0
        self._error = self._signal = self._other = self._product = 0.0
        self._not_finite = [0, 0]
        self._shape: str | None = None

    def add(self, original: NDArray[Any], compressed: NDArray[Any]) -> None:
        """Compare two arrays of any shape, for one batch."""
        if original.shape != compressed.shape:
            self._shape = self._shape or (
                f"output '{self._name}' has shape {list(compressed.shape)} instead of "
                f"{list(original.shape)}"
            )
            return
        self._entries += original.size
        if original.dtype.kind != "f":
            self._float = False
            self._equal += int(np.count_nonzero(original == compressed))
            return
        a, b = original.astype(np.float64).ravel(), compressed.astype(np.float64).ravel()
        broken = [int(np.count_nonzero(~np.isfinite(v))) for v in (a, b)]
        if any(broken):
            self._not_finite = [n + k for n, k in zip(self._not_finite, broken, strict=True)]
            return
        error = b - a
        self._max_abs = max(self._max_abs, float(np.abs(error).max(initial=0.0)))
        self._error += float(error @ error)
        self._signal += float(a @ a)
        self._other += float(b @ b)
        self._product += float(a @ b)

    @property
    def finite(self) -> bool:
        """Whether all entries met so far are finite floats of the same shapes."""
        return (
            self._float and self._shape is None and not any(self._not_finite) and self._entries > 0
        )

    @property
    def sqnr_db(self) -> float | None:
        """``10 log10(sum a^2 / sum (b - a)^2)``, capped by `SQNR_CAP_DB`; None if not finite."""
        if not self.finite:
            return None
        if self._error == 0:
            return SQNR_CAP_DB
        if self._signal == 0:
            return -SQNR_CAP_DB
        ratio = 10 * (math.log10(self._signal) - math.log10(self._error))
        return min(max(ratio, -SQNR_CAP_DB), SQNR_CAP_DB)

    @property
    def cosine(self) -> float | None:
        """Cosine of the angle between all entries as vectors: 1 for two zero vectors, 0 for one."""
        if not self.finite:
            return None
        if self._error == 0:  # exactly, whatever the roots below would round to
            return 1.0
        if self._signal == 0 or self._other == 0:
            return 0.0
        return min(max(self._product / math.sqrt(self._signal) / math.sqrt(self._other), -1.0), 1.0)

    @property
    def equal(self) -> float | None:
        """Share of equal entries of an output that is not of floats."""
        if self._float or self._shape is not None:
            return None
        return self._equal / self._entries if self._entries else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data, None where there are none."""
        figures: dict[str, Any] = {
            "name": self._name,
            "max_abs": self._max_abs if self.finite else None,
            "rms": math.sqrt(self._error / self._entries) if self.finite else None,
            "sqnr_db": self.sqnr_db,
            "cosine": self.cosine,
        }
        if not self._float:
            figures["equal"] = self.equal
        return figures

    def failures(self, min_sqnr_db: float | None, min_equal: float | None) -> list[str]:
        """Return a sentence for each way in which the output falls short."""
        failures = [] if self._shape is None else [self._shape]
        for model, count in zip(("original", "compressed"), self._not_finite, strict=True):
            if count:
                failures.append(
                    f"output '{self._name}': NaN or Inf in {count} values of the {model} model"
                )
        sqnr, equal = self.sqnr_db, self.equal
        if min_sqnr_db is not None and sqnr is not None and sqnr < min_sqnr_db:
            failures.append(
                f"output '{self._name}': SQNR {sqnr:.2f} dB is below {min_sqnr_db:g} dB"
            )
        if min_equal is not None and equal is not None and equal < min_equal:
            failures.append(
                f"output '{self._name}': {100 * equal:.2f} % of the values are equal, "
                f"fewer than {100 * min_equal:g} %"
            )
        return failures


class Classification:
    """Whether two classifiers choose the same classes, and the right ones."""

    def __init__(self) -> None:
        self.samples = 0
        self._top1 = 0
        self._top5 = 0
        self._labelled = 0
        self._both = self._first = self._second = 0

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
        if labels is not None and labels.max(initial=0) >= original.shape[1]:
            raise DataError(
                f"label {labels.max()} is out of range: the model has {original.shape[1]} classes, "
                f"0 to {original.shape[1] - 1}; check the labels"
            )
        a, b = original.argmax(axis=1), compressed.argmax(axis=1)
        five = np.argsort(-compressed, axis=1, kind="stable")[:, :5]
        self.samples += len(a)
        self._top1 += int(np.count_nonzero(a == b))
        self._top5 += int(np.count_nonzero((five == a[:, None]).any(axis=1)))
        if labels is not None:
            right_a, right_b = a == labels, b == labels
            self._labelled += len(a)
            self._both += int(np.count_nonzero(right_a & right_b))
            self._first += int(np.count_nonzero(right_a & ~right_b))
            self._second += int(np.count_nonzero(~right_a & right_b))

    def agreement(self) -> dict[str, Any]:
        """Return how often the original's first class is the other's first, or in its first 5."""
        return {
            "top1": self._top1 / self.samples,
            "top5": self._top5 / self.samples,
        }

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
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    p = successes / trials
    middle = p + z * z / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


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
