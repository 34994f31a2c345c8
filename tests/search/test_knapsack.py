from __future__ import annotations

import ctypes
import itertools
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_lowrank.processes import without_stdout
from onnx_lowrank.search.knapsack import (
    Choice,
    Conflict,
    Limit,
    Together,
    choose,
    picked,
    total,
)


def brute_force(costs: list[np.ndarray], damages: list[np.ndarray], budget: float) -> float | None:
    best = None
    for picks in itertools.product(*(range(c.size) for c in costs)):
        damage = sum(d[i] for d, i in zip(damages, picks, strict=True))
        cost = sum(c[i] for c, i in zip(costs, picks, strict=True))
        if damage <= budget and (best is None or cost < best):
            best = cost
    return best


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.floats(0.05, 1.0))
def test_the_solution_is_the_optimum_of_all_combinations(
    seed: int, layers: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, layers)
    # Milliseconds and small squared errors: the scales of real plans.
    costs = [rng.uniform(1e-4, 1e-2, n) for n in sizes]
    damages = [rng.uniform(0, 1e-5, n) for n in sizes]
    budget = share * sum(d.max() for d in damages)
    choice = choose(costs, [Limit(damages, budget)])
    best = brute_force(costs, damages, budget)
    if best is None:
        assert choice is None
        return
    assert choice is not None
    assert total(picked(damages, choice.picks)) <= budget * (1 + 1e-6)
    # The solver holds constraints to 1e-6: it may find what a budget larger by that much allows.
    lenient = brute_force(costs, damages, budget * (1 + 1e-6))
    assert lenient is not None
    assert lenient * (1 - 2e-4) <= choice.cost <= best * (1 + 2e-4)


def test_no_choice_where_the_least_damage_is_too_much() -> None:
    assert choose([np.array([1.0, 2.0])], [Limit([np.array([0.5, 0.4])], 0.3)]) is None


def test_zero_budget_takes_what_does_no_damage() -> None:
    choice = choose([np.array([1.0, 2.0])] * 2, [Limit([np.array([0.5, 0.0])] * 2, 0.0)])
    assert choice is not None
    assert choice.picks == (1, 1)
    assert choice.cost == 4.0


def test_all_limits_hold_at_once() -> None:
    cost = [np.array([3.0, 2.0, 1.0])] * 2
    damage = Limit([np.array([0.0, 1.0, 2.0])] * 2, 2.0)
    macs = Limit([np.array([3.0, 2.5, 1.0])] * 2, 4.0)
    choice = choose(cost, [damage, macs])
    assert choice is not None
    assert sorted(choice.picks) == [0, 2]  # (1, 1) has more operations than allowed
    assert choose(cost, [damage, Limit(macs.values, 3.9)]) is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.floats(0.05, 1.0))
def test_what_layers_share_comes_off_once_none_of_them_is_kept(
    seed: int, layers: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    costs = [rng.uniform(1e-4, 1e-2, 3) for _ in range(layers)]
    sizes = [np.concatenate(([0.0], rng.uniform(1e3, 1e4, 2))) for _ in range(layers)]
    sets = (Together((0, 1), 2e4), Together(tuple(range(layers)), 1e4))
    limit = Limit(sizes, share * 1e4 - 1.2e4, sets)
    choice = choose(costs, [limit])

    def size(picks: tuple[int, ...]) -> float:
        return total(picked(sizes, picks)) - sum(each.of(picks) for each in sets)

    allowed = [
        picks for picks in itertools.product(range(3), repeat=layers) if size(picks) <= limit.most
    ]
    if not allowed:
        assert choice is None
        return
    assert choice is not None
    best = min(total(picked(costs, picks)) for picks in allowed)
    assert size(choice.picks) <= limit.most + 1e-6 * 2e4  # the solver's tolerance of the unit
    assert choice.cost <= best * (1 + 2e-4)


def test_what_is_minimised_may_be_shared_too() -> None:
    costs = [np.array([0.0, 3.0])] * 2
    assert choose(costs, [], together=[Together((0, 1), 7.0)]) == Choice((1, 1), -1.0, 0.0)
    assert choose(costs, [], together=[Together((0, 1), 5.0)]) == Choice((0, 0), 0.0, 0.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.booleans())
def test_conflicts_are_paid_where_both_sides_are_met(
    seed: int, layers: int, in_limit: bool
) -> None:
    rng = np.random.default_rng(seed)
    costs = [rng.uniform(1e-4, 1e-2, 3) for _ in range(layers)]
    damages = [rng.uniform(0, 1, 3) for _ in range(layers)]
    sides = [rng.random(3) < 0.5 for _ in range(layers)]
    conflicts = [
        Conflict(float(rng.uniform(0, 1e-2)), (i, sides[i]), tuple((j, ~sides[j]) for j in others))
        for i in range(layers)
        if len(others := [j for j in range(layers) if j != i])
    ]
    conflicts.append(Conflict(5e-3, None, tuple(enumerate(sides))))

    def paid(picks: tuple[int, ...]) -> float:
        return total(picked(costs, picks)) + sum(each.of(picks) for each in conflicts)

    all_picks = list(itertools.product(range(3), repeat=layers))
    if in_limit:  # as a bound on the sum, the damage being minimised
        most = float(np.quantile([paid(picks) for picks in all_picks], 0.3))
        choice = choose(damages, [Limit(costs, most, (), tuple(conflicts))])
        allowed = [p for p in all_picks if paid(p) <= most]
        assert choice is not None
        assert paid(choice.picks) <= most + 1e-6 * 1e-2  # the solver's tolerance of the unit
        assert choice.cost <= min(total(picked(damages, p)) for p in allowed) * (1 + 2e-4)
    else:
        choice = choose(costs, [], conflicts=conflicts)
        assert choice is not None
        assert abs(choice.cost - paid(choice.picks)) < 1e-12
        assert choice.cost <= min(map(paid, all_picks)) * (1 + 2e-4)


def test_what_libraries_print_is_not_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    libc = ctypes.CDLL(None)
    print("before")
    with without_stdout():
        libc.puts(b"HighsMipSolverData")
        os.write(1, b"more of it")
    print("after")
    libc.puts(b"and others")
    libc.fflush(None)
    said = capfd.readouterr().out.split("\n")
    assert sorted(filter(None, said)) == ["after", "and others", "before"]
