from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from onnx_lowrank.searching.problem import (
    CLOSE,
    Picks,
    Problem,
    Targets,
    least_damage,
    widen,
    worth_trying,
)


@dataclass(frozen=True)
class Found:
    passed: bool


def problem(seed: int, layers: int = 6, options: int = 12) -> Problem:
    """Candidates on curves as of real layers: damage rises as latency falls."""
    rng = np.random.default_rng(seed)
    shares = np.concatenate(([1.0], np.linspace(0.8, 0.1, options)))
    weight = rng.uniform(0.5, 2, layers)
    scale = rng.uniform(0.01, 0.2, layers)
    rows = [
        (s * (1 / shares - 1) ** 2 / 50, w * (shares - 1))
        for w, s in zip(weight, scale, strict=True)
    ]
    latency = tuple(row[1] for row in rows)
    return Problem(
        damage=tuple(row[0] for row in rows),
        latency=latency,
        macs=tuple(10 * row for row in latency),
        params=tuple(5 * row for row in latency),
        base_latency=float(weight.sum()),
        base_macs=float(10 * weight.sum()),
        base_params=float(5 * weight.sum()),
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("wrong_by", [0.3, 1.0, 3.0])
def test_the_search_finds_how_much_damage_passes(seed: int, wrong_by: float) -> None:
    given = problem(seed)
    allowed = 0.02 * wrong_by  # in predicted units: predictions are off by a common factor
    measured: list[Picks] = []

    def measure(picks: Picks) -> Found:
        measured.append(picks)
        return Found(given.predicted_damage(picks) <= allowed)

    nothing = (0,) * len(given.damage)
    found = widen(given, "latency", Targets(), measure, start=nothing)
    assert found.best is not None
    assert given.predicted_damage(found.best) <= allowed
    assert len(measured) <= 10
    assert len(set(measured)) == len(measured)
    # No plan within the damage where the search stopped is faster by more than the last step.
    assert found.low <= allowed * (1 + 1e-6)
    assert found.high / found.low <= CLOSE * 1.5 or len(measured) == 10


def test_nothing_passes_and_the_start_stays() -> None:
    given = problem(0)
    start = (0,) * len(given.damage)
    found = widen(given, "latency", Targets(), lambda picks: Found(False), start=start)
    assert found.best == start


def test_everything_passes_and_the_fastest_is_found() -> None:
    given = problem(1)
    start = (0,) * len(given.damage)
    found = widen(given, "latency", Targets(), lambda picks: Found(True), start=start)
    assert found.best == tuple(int(v.argmin()) for v in given.latency)


def test_targets_are_met_with_the_least_damage() -> None:
    given = problem(2)
    picks = least_damage(given, Targets(latency=0.5 * given.base_latency))
    assert picks is not None
    assert given.predicted_latency(picks) <= 0.5 * given.base_latency * (1 + 1e-6)
    tight = Targets(macs=0.3 * given.base_macs, params=0.3 * given.base_params)
    tighter = least_damage(given, tight)
    assert tighter is not None
    assert given.predicted_damage(tighter) > given.predicted_damage(picks)
    assert least_damage(given, Targets(latency=0.05 * given.base_latency)) is None


def test_hopeless_candidates_are_not_tried() -> None:
    macs = [10.0, 10.0, 20.0, 8.0]
    errors = [0.1, 0.2, 0.15, 0.5]
    # The third has twice the first's operations and more error; the second as many: it may be fast.
    assert worth_trying(macs, errors, slack=1.5) == [0, 1, 3]
