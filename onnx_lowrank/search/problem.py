"""What a search chooses from: candidates in numbers, and the targets that picks have to meet."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnx_lowrank.planning.budget import Budget, Objective
from onnx_lowrank.search.knapsack import Conflict, Limit, Together, choose, picked, total
from onnx_lowrank.types import Array

Picks = tuple[int, ...]


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
    conflicts : tuple of Conflict
        Seconds that neighbours of different forms cost each other, the layers as they are
        included.
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
    conflicts: tuple[Conflict, ...] = ()

    @property
    def unreplaced(self) -> Picks:
        """The picks that keep every layer."""
        return (0,) * len(self.damage)

    @property
    def bare_latency(self) -> float:
        """Seconds to which candidates and conflicts add."""
        kept = total([each.of(self.unreplaced) for each in self.conflicts])
        return self.base_latency - self.saved_latency - kept

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
        conflicts = total([each.of(picks) for each in self.conflicts])
        return self.bare_latency + total(picked(self.latency, picks)) + conflicts

    def predicted_ratio(self, picks: Picks) -> float:
        """Return that latency over the original's."""
        return self.predicted_latency(picks) / self.base_latency

    def predicted_bytes(self, picks: Picks) -> float:
        """Return the size of the file as the sum of its layers says."""
        shared = total([each.of(picks) for each in self.shared_bytes])
        return self.base_bytes + total(picked(self.bytes, picks)) - shared

    def scaled(self, factor: float) -> Problem:
        """Return the problem with what layers save, and what neighbours cost, times a factor."""
        return replace(
            self,
            latency=tuple(factor * values for values in self.latency),
            conflicts=tuple(replace(each, cost=factor * each.cost) for each in self.conflicts),
        )

    def predicted_damage(self, picks: Picks) -> float:
        """Return the damage as the sum of its layers says."""
        return total(picked(self.damage, picks))


@dataclass(frozen=True)
class Targets:
    """What the result may cost at most; None for no bound.

    Attributes
    ----------
    latency : float or None
        Seconds.
    macs, params, bytes : float or None
        Multiply-adds, parameters, and bytes of the file.
    """

    latency: float | None = None
    macs: float | None = None
    params: float | None = None
    bytes: float | None = None

    @classmethod
    def of(cls, budget: Budget, problem: Problem) -> Targets:
        """Return what a budget asks for."""
        speedup = budget.min_speedup
        return cls(
            latency=None if speedup is None else problem.base_latency / speedup,
            macs=None if budget.macs is None else budget.macs * problem.base_macs,
            params=None if budget.params is None else budget.params * problem.base_params,
            bytes=None if budget.size_mb is None else 1e6 * budget.size_mb,
        )

    def limits(self, problem: Problem) -> list[Limit]:
        """Return the bounds as limits on what candidates add."""
        limits = (
            (self.latency, problem.bare_latency, Limit(problem.latency, 0, (), problem.conflicts)),
            (self.macs, problem.base_macs, Limit(problem.macs, 0)),
            (self.params, problem.base_params, Limit(problem.params, 0, problem.shared_params)),
            (self.bytes, problem.base_bytes, Limit(problem.bytes, 0, problem.shared_bytes)),
        )
        return [
            replace(limit, most=most - base) for most, base, limit in limits if most is not None
        ]


def least_damage(problem: Problem, targets: Targets) -> Picks | None:
    """Return the picks of least predicted damage that meet the targets; None if none do."""
    choice = choose(problem.damage, targets.limits(problem))
    return choice.picks if choice else None


def fastest(
    problem: Problem, objective: Objective, targets: Targets, damage: float
) -> Picks | None:
    """Return the picks of least cost whose predicted damage is at most `damage`, or None."""
    limits = [Limit(problem.damage, damage), *targets.limits(problem)]
    choice = choose(
        problem.costs(objective),
        limits,
        together=problem.together(objective),
        conflicts=problem.conflicts if objective == "latency" else (),
    )
    return choice.picks if choice else None
