"""The search of a plan: a knapsack on predicted damage, corrected by measurements."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from onnx_lowrank.planning.budget import Objective
from onnx_lowrank.planning.knapsack import Limit, Together, choose, picked, total
from onnx_lowrank.types import Array

Picks = tuple[int, ...]

FIRST_DAMAGE = 0.01  # where a search begins to look: errors of a tenth of the signal
CLOSE = 1.08  # ratio of damages between which it stops
MAX_EVALUATIONS = 10


class Verdict(Protocol):
    """What was measured of a whole model."""

    @property
    def passed(self) -> bool:
        """Whether it is within the bounds on quality."""
        ...


@dataclass(frozen=True, eq=False)
class Problem:
    """Candidates of every layer; the first keeps the layer as it is.

    Attributes
    ----------
    damage : tuple of ndarray
        For every layer the predicted damage of each candidate to the network's output, 0 for the
        first.
    latency, macs, params, bytes : tuple of ndarray
        Seconds, multiply-adds, parameters and bytes of the file that each candidate adds to the
        original's, 0 for the first, negative where it saves.
    base_latency, base_macs, base_params, base_bytes : float
        The original's.
    saved_latency : float
        Seconds that the rewriting saves whatever is chosen.
    shared_params, shared_bytes : tuple of Together
        Those of tensors that several layers read: they go when all of these are replaced.
    """

    damage: tuple[Array, ...]
    latency: tuple[Array, ...]
    macs: tuple[Array, ...]
    params: tuple[Array, ...]
    base_latency: float
    base_macs: float
    base_params: float
    saved_latency: float = 0.0
    bytes: tuple[Array, ...] = ()
    base_bytes: float = 0.0
    shared_params: tuple[Together, ...] = ()
    shared_bytes: tuple[Together, ...] = ()

    def costs(self, objective: Objective) -> tuple[Array, ...]:
        """Return what is minimised."""
        costs: dict[Objective, tuple[Array, ...]] = {
            "latency": self.latency,
            "macs": self.macs,
            "params": self.params,
        }
        return costs[objective]

    def together(self, objective: Objective) -> tuple[Together, ...]:
        """Return what comes off the sum of what is minimised."""
        return self.shared_params if objective == "params" else ()

    def predicted_latency(self, picks: Picks) -> float:
        """Return the seconds of the whole model as the sum of its layers says."""
        return self.base_latency - self.saved_latency + total(picked(self.latency, picks))

    def predicted_ratio(self, picks: Picks) -> float:
        """Return that latency over the original's."""
        return self.predicted_latency(picks) / self.base_latency

    def predicted_bytes(self, picks: Picks) -> float:
        """Return the size of the file as the sum of its layers says."""
        shared = total([each.of(picks) for each in self.shared_bytes])
        return self.base_bytes + total(picked(self.bytes, picks)) - shared

    def predicted_damage(self, picks: Picks) -> float:
        """Return the damage as the sum of its layers says."""
        return total(picked(self.damage, picks))


@dataclass(frozen=True)
class Targets:
    """Most seconds, multiply-adds, parameters, and bytes of the result; None for no bound."""

    latency: float | None = None
    macs: float | None = None
    params: float | None = None
    bytes: float | None = None

    def limits(self, problem: Problem) -> list[Limit]:
        """Return the bounds as limits on what candidates add."""
        found = []
        base_latency = problem.base_latency - problem.saved_latency
        for most, values, base, together in (
            (self.latency, problem.latency, base_latency, ()),
            (self.macs, problem.macs, problem.base_macs, ()),
            (self.params, problem.params, problem.base_params, problem.shared_params),
            (self.bytes, problem.bytes, problem.base_bytes, problem.shared_bytes),
        ):
            if most is not None:
                found.append(Limit(values, most - base, together))
        return found


def least_damage(problem: Problem, targets: Targets) -> Picks | None:
    """Return the picks of least predicted damage that meet the targets; None if none do."""
    choice = choose(problem.damage, targets.limits(problem))
    return choice.picks if choice else None


def fastest(
    problem: Problem, objective: Objective, targets: Targets, damage: float
) -> Picks | None:
    """Return the picks of least cost whose predicted damage is at most `damage`, or None."""
    limits = [Limit(problem.damage, damage), *targets.limits(problem)]
    choice = choose(problem.costs(objective), limits, together=problem.together(objective))
    return choice.picks if choice else None


@dataclass
class Frontier:
    """The largest damage known to pass, the least known to fail, and all that was tried.

    Attributes
    ----------
    tried : list of (Picks, Verdict)
        In the order of their measurement.
    """

    low: float = 0.0
    high: float = math.inf
    best: Picks | None = None
    tried: list[tuple[Picks, Verdict]] = field(default_factory=list)


def widen(
    problem: Problem,
    objective: Objective,
    targets: Targets,
    measure: Callable[[Picks], Verdict],
    *,
    start: Picks,
    first: float = FIRST_DAMAGE,
    evaluations: int = MAX_EVALUATIONS,
) -> Frontier:
    """Find the picks of least cost that pass, by bisection on the predicted damage allowed.

    The prediction orders plans well and is off by a common factor at most; how much damage passes
    is measured, by whole models.

    Parameters
    ----------
    problem, objective, targets
        What to choose from, what to minimise, and within which bounds.
    measure : callable
        Measures the model of some picks.
    start : tuple of int
        Picks that are known to pass.
    first : float
        The damage to try first.
    evaluations : int
        Most measurements.
    """
    found = Frontier(low=problem.predicted_damage(start), best=start)
    verdicts: dict[Picks, bool] = {start: True}
    most = total([float(d.max()) for d in problem.damage])
    damage = max(first, found.low * CLOSE)
    while len(found.tried) < evaluations:
        damage = min(damage, most)
        picks = fastest(problem, objective, targets, damage)
        if picks is not None and picks not in verdicts:
            verdict = measure(picks)
            verdicts[picks] = verdict.passed
            found.tried.append((picks, verdict))
        if picks is None or verdicts[picks]:  # no picks at all: too little damage is allowed
            found.low = damage
            found.best = picks or found.best
            if damage >= most:
                break
        else:
            found.high = damage
        if math.isinf(found.high):
            damage = 2 * damage
        elif found.low <= 0:
            damage = found.high / 4
            if damage < FIRST_DAMAGE * 1e-4:
                break
        elif found.high / found.low <= CLOSE:
            break
        else:
            damage = math.sqrt(found.low * found.high)
    return found


def worth_trying(macs: Sequence[float], errors: Sequence[float], *, slack: float) -> list[int]:
    """Return the candidates not beaten in error by another with `slack` times fewer multiply-adds.

    Operations say what is hopeless, not what is fast: a structure may run at twice the speed of
    another with as many.
    """
    beaten = [
        any(m * slack <= mine and e <= error for m, e in zip(macs, errors, strict=True))
        for mine, error in zip(macs, errors, strict=True)
    ]
    return [i for i, is_beaten in enumerate(beaten) if not is_beaten]
