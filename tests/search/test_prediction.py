"""Intervals hold what they are told to hold, as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_lowrank.data.split import RUN
from onnx_lowrank.search.prediction import CountPredictor, MeanPredictor, design_effect

TRIALS = 400
# With 95 % of 400 the standard error is 1.1 points: five of them below is no chance.
LEAST = 0.895


@pytest.mark.parametrize("share", [0.0, 0.002, 0.02, 0.2])
def test_counts_of_other_samples_are_held(share: float) -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(TRIALS):
        seen = (rng.random(300) < share).astype(np.int64)
        others = 100 * np.mean(rng.random(700) < share)
        held += CountPredictor.of("agreement", seen).predict(700).holds(float(others))
    assert held / TRIALS >= LEAST


def test_gains_and_losses_are_held() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(TRIALS):
        seen, others = (rng.choice([1, -1, 0], n, p=[0.03, 0.02, 0.95]) for n in (300, 700))
        prediction = CountPredictor.of("accuracy", seen).predict(700)
        held += prediction.holds(100 * float(others.mean()))
    assert held / TRIALS >= LEAST
    even = CountPredictor("accuracy", 3, 3, 294, 1.0).predict(300)
    assert even.value == 0
    assert even.low < 0 < even.high  # as much may be won as lost
    alike = CountPredictor("agreement", 3, 0, 297, 1.0).predict(300)
    assert 0 <= alike.low < alike.value == 1 < alike.high  # nothing can be won


def test_neighbours_that_are_alike_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(TRIALS):
        # A scene, of which there are RUN pictures, is lost as a whole.
        seen, others = (np.repeat(rng.random(n) < 0.1, RUN).astype(np.int64) for n in (40, 80))
        predictor = CountPredictor.of("agreement", seen)
        held += predictor.predict(len(others)).holds(100 * float(others.mean()))
    assert held / TRIALS >= LEAST
    assert predictor.design > 4


def test_independent_samples_have_no_design_effect() -> None:
    rng = np.random.default_rng(3)
    effects = [design_effect((rng.random(800) < 0.1).astype(np.int64)) for _ in range(100)]
    assert np.median(effects) < 1.2
    assert design_effect(np.zeros(800, np.int64)) == 1
    assert design_effect(np.array([1, 0, 1])) == 1


@pytest.mark.parametrize("units", [None, 75])
def test_a_mean_of_other_samples_is_held(units: int | None) -> None:
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(TRIALS):
        seen, others = rng.exponential(size=300), rng.exponential(size=700)
        parts = seen if units is None else seen.reshape(units, -1).mean(axis=1)

        def figure(places: np.ndarray, parts: np.ndarray = parts) -> float:
            return float(parts[places].mean())

        predictor = MeanPredictor.of("score", 300, figure, units=units)
        assert predictor is not None
        assert predictor.value == pytest.approx(seen.mean())
        held += predictor.predict(700).holds(float(others.mean()))
    assert held / TRIALS >= LEAST


def test_nothing_is_told_of_too_few_samples_or_of_no_error() -> None:
    assert MeanPredictor.of("score", 1, lambda places: 1.0) is None
    assert MeanPredictor.of("sqnr_db", 20, lambda places: float("inf")) is None
