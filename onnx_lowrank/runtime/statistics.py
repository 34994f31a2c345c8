"""What timings say: quantiles of a latency, and the interval of a ratio of two latencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A difference that is not there is found in one of a hundred comparisons.
CONFIDENCE = 0.99
# With fewer, not even the widest interval of signed ranks reaches 99 %.
MIN_REPEATS = 8
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
    """A ratio of latencies and the interval that holds it with probability `confidence`."""

    ratio: float
    low: float
    high: float
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "ratio": self.ratio,
            "low": self.low,
            "high": self.high,
            "confidence": self.confidence,
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


def ratio_interval(logs: NDArray[np.float64]) -> RatioInterval:
    """Return the ratio of two latencies with the interval that holds it at `CONFIDENCE` or more.

    Hodges and Lehmann's estimate with the interval of Wilcoxon's signed ranks (Hollander, Wolfe and
    Chicken, Nonparametric Statistical Methods, 3rd edition, sections 3.2 and 3.3): the median, and
    two order statistics, of the means of all pairs of repeats.

    1. The unit is a repeat, not a run or a round. Runs of one repeat share the session's memory
       layout and the machine's mood: a bootstrap over them takes both for certain, and holds the
       truth in as few as six of ten cases.
    2. It asks for nothing but symmetry, which a model against itself has exactly, whatever the
       noise. A bootstrap over ten repeats falls short of its level (plain percentiles hold the
       truth in nine of ten cases), and one disturbed repeat can make its studentised form useless.

    Parameters
    ----------
    logs : ndarray, shape (repeats,), float64
        One log ratio for each repeat, `MIN_REPEATS` or more.
    """
    n = logs.size
    if n < MIN_REPEATS:
        raise ValueError(f"an interval needs {MIN_REPEATS} repeats or more, not {n}")
    first, second = np.triu_indices(n)
    means = np.sort((logs[first] + logs[second]) / 2)
    below = np.cumsum(_signed_rank_probabilities(n))
    # Each end leaves out as many means as its tail allows.
    left_out = int(np.searchsorted(below, (1 - CONFIDENCE) / 2, side="right"))
    low, high = means[left_out - 1], means[-left_out]
    return RatioInterval(
        ratio=float(np.exp(np.median(means))),
        low=float(np.exp(low)),
        high=float(np.exp(high)),
        confidence=float(1 - 2 * below[left_out - 1]),
    )


def _signed_rank_probabilities(n: int) -> NDArray[np.float64]:
    """Return the probability of each sum of those of the ranks 1 to n that a fair coin picks."""
    found = np.ones(1)
    for rank in range(1, n + 1):
        longer = np.zeros(found.size + rank)
        longer[: found.size] += found / 2
        longer[rank:] += found / 2
        found = longer
    return found
