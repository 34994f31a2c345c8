from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from onnx_lowrank.runtime.statistics import (
    CONFIDENCE,
    MIN_REPEATS,
    Latency,
    RatioInterval,
    log_ratios,
    ratio_interval,
)


def test_latency_quantiles() -> None:
    latency = Latency.of(np.arange(1.0, 102.0).reshape(1, 101, 1) / 1000)
    assert latency.runs == 101
    assert latency.median == pytest.approx(0.051)
    assert latency.p90 == pytest.approx(0.091)
    assert latency.p99 == pytest.approx(0.1)
    assert latency.minimum == 0.001
    assert latency.spread == pytest.approx(50 / 51)
    assert latency.to_dict()["mean_ms"] == pytest.approx(51)


def test_spread_ignores_a_few_disturbed_runs() -> None:
    times = np.full(100, 0.01)
    times[:10] = 1.0
    assert Latency.of(times).spread == 0


def test_log_ratios_are_paired_and_ignore_a_burst() -> None:
    rng = np.random.default_rng(0)
    machine = np.exp(rng.normal(0, 0.5, (10, 7)))  # what both contenders go through in a round
    times, reference = 2 * machine, machine.copy()
    times[:, :3] *= 50  # three of seven rounds of each repeat are spoilt
    np.testing.assert_allclose(log_ratios(times, reference), math.log(2), rtol=1e-12)


@pytest.mark.parametrize("n", [8, 10, 15, 20])
def test_interval_is_that_of_the_signed_rank_test(n: int) -> None:
    """The ends are where Wilcoxon's exact two-sided test, of scipy, stops rejecting."""
    logs = np.random.default_rng(n).normal(0.1, 0.3, n)
    found = ratio_interval(logs)
    nudge = 1e-9
    for end, inwards in ((found.low, nudge), (found.high, -nudge)):
        p_inside = stats.wilcoxon(logs - math.log(end) - inwards, method="exact").pvalue
        p_outside = stats.wilcoxon(logs - math.log(end) + inwards, method="exact").pvalue
        assert p_outside <= 0.01 < p_inside
        assert p_outside == pytest.approx(1 - found.confidence)
    assert found.low < found.ratio < found.high


def test_constant_logs_have_no_width() -> None:
    found = ratio_interval(np.full(10, math.log(0.5)))
    assert (found.low, found.ratio, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_inverse_ratio_has_the_inverse_interval() -> None:
    logs = np.random.default_rng(1).normal(0.2, 0.1, 9)
    there, back = ratio_interval(logs), ratio_interval(-logs)
    assert (back.low, back.ratio, back.high) == pytest.approx(
        (1 / there.high, 1 / there.ratio, 1 / there.low)
    )


def test_too_few_repeats() -> None:
    with pytest.raises(ValueError, match="needs 8 repeats or more, not 7"):
        ratio_interval(np.zeros(MIN_REPEATS - 1))


def _session_times(
    rng: np.random.Generator, repeats: int, rounds: int, ratio: float, bursts: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Block times of two models, as a shared machine gives them.

    Autocorrelated speed of the machine (correlation 0.95 from block to block, 3 %), a layout effect
    for each loaded session (0.5 %), and bursts of other work over several blocks.
    """
    blocks = 2 * repeats * rounds
    noise = np.empty(blocks)
    noise[0] = rng.normal(0, 0.03)
    for k in range(1, blocks):
        noise[k] = 0.95 * noise[k - 1] + rng.normal(0, 0.03 * math.sqrt(1 - 0.95**2))
    start = 0
    while bursts:
        start += int(rng.geometric(1 / 40))
        if start >= blocks:
            break
        length = int(rng.geometric(1 / 6))
        noise[start : start + length] += rng.uniform(0.1, 1.0)
        start += length
    pairs = noise.reshape(repeats, rounds, 2)
    swapped = rng.random((repeats, rounds)) < 0.5
    pairs = np.where(swapped[..., None], pairs[..., ::-1], pairs)
    layout = rng.normal(0, 0.005, (repeats, 1, 2))
    times = np.exp(pairs + layout)
    return ratio * times[..., 1], times[..., 0]


@pytest.mark.parametrize("bursts", [False, True])
@pytest.mark.parametrize(("repeats", "rounds"), [(8, 3), (10, 8), (20, 5)])
def test_interval_holds_the_ratio_as_often_as_it_says(
    repeats: int, rounds: int, bursts: bool
) -> None:
    """Coverage by simulation.

    The least count is that which 1000 trials at a true coverage of 99 % miss with probability 0.001
    (binomial), so that a method that covers less is found out.
    """
    rng = np.random.default_rng(repeats)
    trials, ratio = 1000, 0.7

    def interval() -> RatioInterval:
        return ratio_interval(log_ratios(*_session_times(rng, repeats, rounds, ratio, bursts)))

    held = sum(found.low <= ratio <= found.high for found in (interval() for _ in range(trials)))
    assert held >= stats.binom.ppf(0.001, trials, CONFIDENCE)


def test_a_bootstrap_over_rounds_would_not() -> None:
    """The reason for taking repeats as the unit: the same simulation, the plain method."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        times, reference = _session_times(rng, 10, 20, 1.0, bursts=False)
        logs = np.log(times / reference).ravel()
        medians = np.median(logs[rng.integers(0, logs.size, (500, logs.size))], axis=1)
        low, high = np.quantile(medians, [0.005, 0.995])
        held += low <= 0 <= high
    # At a true coverage of 99 %, 185 or fewer of 200 have a probability below 1e-8.
    assert held <= 185
