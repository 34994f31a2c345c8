"""What timings say: quantiles of a latency, and the interval of a ratio of two latencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 9999
Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Latency:
    """Quantiles of the time of one run, in seconds.

    ``spread`` is the distance between the quartiles relative to the median, which a few disturbed
    runs do not change. With fewer than 100 runs ``p99`` says little more than the slowest run.
    """

    runs: int
    mean: float
    median: float
    p90: float
    p99: float
    minimum: float
    spread: float

    @classmethod
    def of(cls, times: Seconds) -> Latency:
        """Summarise `times`, an array of any shape with at least one entry, in seconds."""
        low, median, high, p90, p99 = np.quantile(times, [0.25, 0.5, 0.75, 0.9, 0.99])
        return cls(
            runs=times.size,
            mean=float(times.mean()),
            median=float(median),
            p90=float(p90),
            p99=float(p99),
            minimum=float(times.min()),
            spread=float((high - low) / median),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the figures in milliseconds, the spread as a fraction, ready for JSON."""
        return {
            "runs": self.runs,
            "mean_ms": 1e3 * self.mean,
            "median_ms": 1e3 * self.median,
            "p90_ms": 1e3 * self.p90,
            "p99_ms": 1e3 * self.p99,
            "min_ms": 1e3 * self.minimum,
            "spread": self.spread,
        }


@dataclass(frozen=True)
class RatioInterval:
    """A ratio of latencies and the interval that holds it at `CONFIDENCE`."""

    ratio: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "ratio": self.ratio,
            "low": self.low,
            "high": self.high,
            "confidence": CONFIDENCE,
        }


def log_ratios(times: Seconds, reference: Seconds) -> NDArray[np.float64]:
    """Return one log ratio of latencies for each repeat.

    Parameters
    ----------
    times, reference : ndarray, shape (repeats, rounds), float64
        Median time of a run in each block. Entries at one place were measured in one round, one
        right after the other: their ratio is free of what both went through.

    Returns
    -------
    ndarray, shape (repeats,), float64
        Median over the rounds of each repeat of ``log(times / reference)``. A burst of other work
        on the machine spoils a few rounds, which a median ignores.
    """
    return np.asarray(np.median(np.log(times) - np.log(reference), axis=1), dtype=np.float64)


def ratio_interval(logs: NDArray[np.float64], rng: np.random.Generator) -> RatioInterval:
    """Return the ratio of two latencies with its bootstrap interval.

    The studentised bootstrap (bootstrap-t; Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, section 12.5) over repeats. The unit that is resampled is a repeat, not a run or a round:
    runs of one repeat share the session's memory layout and the machine's mood, so that they are
    correlated, and a bootstrap over them gives intervals that hold the truth in as few as six of
    ten cases. The studentised form is needed because repeats are few: plain percentiles of ten
    repeats hold it in nine of ten.

    Parameters
    ----------
    logs : ndarray, shape (repeats,), float64
        One log ratio for each repeat, of at least 2.
    rng : numpy.random.Generator
        Draws the resamples.
    """
    n = logs.size
    if n < 2:
        raise ValueError("an interval needs at least 2 repeats")
    mean, error = float(logs.mean()), float(logs.std(ddof=1)) / n**0.5
    samples = logs[rng.integers(0, n, (RESAMPLES, n))]
    shift = samples.mean(axis=1) - mean
    errors = samples.std(axis=1, ddof=1) / n**0.5
    # A resample of one repeat drawn n times has no spread: its t is infinite, or 0 where it is the mean.
    flat = errors <= 1e-9 * error
    t = np.where(flat, np.sign(shift) * np.inf, shift / np.where(flat, 1.0, errors))
    t[flat & (shift == 0)] = 0.0
    tail = (1 - CONFIDENCE) / 2
    # "nearest" picks an entry: interpolation between infinities would give NaN.
    low, high = np.quantile(t, [tail, 1 - tail], method="nearest")
    if error == 0:
        low = high = 0.0
    with np.errstate(over="ignore"):
        ends = np.exp([mean, mean - high * error, mean - low * error])
    return RatioInterval(*(float(end) for end in ends))
