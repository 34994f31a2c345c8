"""How much predicted damage a budget allows, found by whole models."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from onnx_lowrank.search.knapsack import total
from onnx_lowrank.search.problem import Picks, Problem
from onnx_lowrank.search.settings import SearchSettings


@dataclass(frozen=True)
class Outcome:
    """What a measurement of a whole model says.

    Attributes
    ----------
    accepted : bool
        Whether the model is within the budget.
    bound : float or None
        About how much predicted damage the budget allows, where that can be told.
    """

    accepted: bool
    bound: float | None


@dataclass(frozen=True)
class Damages:
    """Predicted damages between which a search tries.

    Attributes
    ----------
    picks : tuple of int
        Those that are known to be accepted.
    start : float
        Their damage.
    first : float
        The damage to try first.
    most : float
        That of the worst candidates of all layers.
    """

    picks: Picks
    start: float
    first: float
    most: float

    @classmethod
    def of(cls, problem: Problem, picks: Picks, settings: SearchSettings) -> Damages:
        """Return the damages of a problem, from picks that are known to be accepted."""
        start = problem.predicted_damage(picks)
        most = total([float(d.max()) for d in problem.damage])
        return cls(picks, start, max(settings.first_damage, start * settings.close), most)


def spend_damage(
    choose: Callable[[float], Picks | None],
    measure: Callable[[Picks], Outcome],
    damages: Damages,
    *,
    settings: SearchSettings,
) -> Picks:
    """Find the picks of least cost that are accepted, by how much damage is allowed.

    The prediction orders plans well and is off by a common factor at most; how much damage is
    accepted is measured, by whole models, each of which tells about where the bound is.

    Parameters
    ----------
    choose : callable
        Gives the picks of least cost of at most some damage, or None.
    measure : callable
        Measures the model of some picks.
    damages : Damages
        Where to start, and between which to look.
    settings : SearchSettings
        When to stop.
    """
    best, low, high = damages.picks, damages.start, math.inf
    known = {best: Outcome(True, None)}
    measured = 0
    damage = damages.first
    while measured < settings.most_evaluations:
        damage = min(damage, damages.most)
        picks = choose(damage)
        if picks is not None and picks not in known:
            known[picks] = measure(picks)
            measured += 1
        # No picks at all: too little damage is allowed.
        outcome = Outcome(True, None) if picks is None else known[picks]
        if outcome.accepted:
            low = damage
            best = picks or best
            if damage >= damages.most:
                break
        else:
            high = damage
        if low > 0 and high / low <= settings.close:
            break
        damage = _next_damage(low, high, outcome.bound, settings.close)
        if low <= 0 and damage < settings.first_damage * 1e-4:
            break
    return best


def _next_damage(low: float, high: float, guess: float | None, close: float) -> float:
    """Return what to try between accepted and refused damage, at a guess of the bound if any."""
    if math.isinf(high):
        return 2 * low if guess is None else min(max(guess, close * low), 16 * low)
    if low <= 0:
        return high / 4 if guess is None else max(min(guess, high / close), high / 16)
    if guess is None or high / low <= close**2:
        return math.sqrt(low * high)
    return min(max(guess, low * close), high / close)
