from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnx_lowrank.search.knapsack import Conflict
from onnx_lowrank.search.problem import (
    Picks,
    Problem,
    Targets,
    fastest,
    least_damage,
)
from onnx_lowrank.search.settings import SETTINGS
from onnx_lowrank.search.spending import Damages, Outcome, spend_damage


def spend(
    given: Problem,
    accepted: Callable[[Picks], bool],
    bound: Callable[[Picks], float | None] = lambda picks: None,
) -> Picks:
    return spend_damage(
        lambda damage: fastest(given, "latency", Targets(), damage),
        lambda picks: Outcome(accepted(picks), bound(picks)),
        Damages.of(given, given.unreplaced, SETTINGS),
        settings=SETTINGS,
    )


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

    def accepted(picks: Picks) -> bool:
        measured.append(picks)
        return given.predicted_damage(picks) <= allowed

    best = spend(given, accepted)
    assert given.predicted_damage(best) <= allowed
    assert len(measured) <= SETTINGS.most_evaluations
    assert len(set(measured)) == len(measured)
    if len(measured) < SETTINGS.most_evaluations:
        # No plan within the damage where the search stopped is faster by more than the last step.
        nearest = fastest(given, "latency", Targets(), allowed / SETTINGS.close**1.5)
        assert nearest is not None
        assert given.predicted_latency(best) <= given.predicted_latency(nearest) * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("wrong_by", [0.01, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("guessed", [0.8, 1.0, 1.3])
def test_what_a_model_tells_of_the_bound_saves_measurements(
    seed: int, wrong_by: float, guessed: float
) -> None:
    given, allowed = problem(seed), 0.02 * wrong_by
    measured: list[Picks] = []

    def accepted(picks: Picks) -> bool:
        measured.append(picks)
        return given.predicted_damage(picks) <= allowed

    best = spend(given, accepted, lambda picks: guessed * allowed)
    found = len(measured)
    assert given.predicted_damage(best) <= allowed
    nearest = fastest(given, "latency", Targets(), allowed / SETTINGS.close**1.5)
    assert nearest is not None
    assert given.predicted_latency(best) <= given.predicted_latency(nearest) * (1 + 1e-6)
    blind = spend(given, accepted)
    assert given.predicted_damage(blind) <= allowed
    assert found <= len(measured) - found


def test_nothing_passes_and_the_start_stays() -> None:
    given = problem(0)
    assert spend(given, lambda picks: False) == given.unreplaced


def test_everything_passes_and_the_fastest_is_found() -> None:
    given = problem(1)
    assert spend(given, lambda picks: True) == tuple(int(v.argmin()) for v in given.latency)


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


def test_neighbours_take_one_layout_where_a_change_of_it_costs_more_than_it_saves() -> None:
    # Two layers, each with a candidate that saves 2 ms and wants another layout than the rest.
    other = np.array([False, True])
    given = Problem(
        damage=(np.array([0.0, 0.1]),) * 2,
        latency=(np.array([0.0, -2e-3]),) * 2,
        macs=(np.zeros(2),) * 2,
        params=(np.zeros(2),) * 2,
        base_latency=10e-3,
        base_macs=1.0,
        base_params=1.0,
        conflicts=(
            Conflict(1.5e-3, (0, other), ((1, ~other),)),
            Conflict(1.5e-3, (0, ~other), ((1, other),)),
            Conflict(1e-3, None, ((0, other),)),
        ),
    )
    assert given.predicted_latency((0, 0)) == pytest.approx(10e-3)
    assert given.predicted_latency((1, 0)) == pytest.approx(10.5e-3)
    assert given.predicted_latency((0, 1)) == pytest.approx(9.5e-3)
    assert given.predicted_latency((1, 1)) == pytest.approx(7e-3)
    assert fastest(given, "latency", Targets(), 0.1) == (0, 1)
    assert fastest(given, "latency", Targets(), 0.2) == (1, 1)
    assert least_damage(given, Targets(latency=9.6e-3)) == (0, 1)
    assert least_damage(given, Targets(latency=9e-3)) == (1, 1)
    half = given.scaled(0.5)
    assert half.predicted_latency((0, 0)) == pytest.approx(10e-3)
    assert half.predicted_latency((1, 1)) == pytest.approx(8.5e-3)
