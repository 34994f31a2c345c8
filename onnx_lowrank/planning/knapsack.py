"""One candidate per layer at the least cost within limits: the multiple-choice knapsack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from onnx_lowrank.types import Array


@dataclass(frozen=True)
class Together:
    """What is saved once none of some layers keeps its first candidate, the layer as it is.

    Attributes
    ----------
    layers : tuple of int
        Places of the layers.
    saving : float
        Taken off the sum.
    """

    layers: tuple[int, ...]
    saving: float

    def of(self, picks: Sequence[int]) -> float:
        """Return what some picks save."""
        return self.saving if all(picks[layer] for layer in self.layers) else 0.0


@dataclass(frozen=True)
class Limit:
    """A bound on the sum of one quantity over the picks.

    Attributes
    ----------
    values : sequence of ndarray
        For every layer one value per candidate.
    most : float
        The largest sum.
    together : tuple of Together
        What comes off the sum, such as a tensor that several layers share.
    """

    values: Sequence[Array]
    most: float
    together: tuple[Together, ...] = ()


@dataclass(frozen=True)
class Choice:
    """A solution of the knapsack.

    Attributes
    ----------
    picks : tuple of int
        Index of the candidate of every layer.
    cost : float
        Sum of the costs of the picks.
    gap : float
        Proven relative distance of `cost` from the optimum.
    """

    picks: tuple[int, ...]
    cost: float
    gap: float


def choose(
    costs: Sequence[Array],
    limits: Sequence[Limit],
    *,
    together: Sequence[Together] = (),
    gap: float = 1e-4,
) -> Choice | None:
    """Minimise the sum of costs within all limits.

    Solved by branch and bound on the mixed-integer program (HiGHS, through scipy).

    Parameters
    ----------
    costs : sequence of ndarray
        For every layer one value per candidate.
    limits : sequence of Limit
        Their values in the same order.
    together : sequence of Together
        What comes off the sum of costs.
    gap : float
        Relative gap at which the solver may stop.

    Returns
    -------
    Choice or None
        None if no picks are within the limits.
    """
    for limit in limits:
        least = total([value.min() for value in limit.values])
        if least - total([each.saving for each in limit.together]) > limit.most:
            return None
    cost = np.concatenate(costs)
    starts = np.cumsum([0, *(c.size for c in costs)])
    layer_of = np.repeat(np.arange(len(costs)), [c.size for c in costs])
    # One more variable for each set of layers: 1 where it may be, none of them being kept.
    saved = [*together, *(each for limit in limits for each in limit.together)]
    sets = list(dict.fromkeys(each.layers for each in saved))
    width = cost.size + len(sets)

    def row(values: Sequence[Array], savings: Sequence[Together]) -> Array:
        extra = np.zeros(len(sets))
        for each in savings:
            extra[sets.index(each.layers)] -= each.saving
        return np.concatenate((*values, extra))

    one_each = sparse.csr_array(
        (np.ones(cost.size), (layer_of, np.arange(cost.size))), shape=(len(costs), width)
    )
    constraints = [LinearConstraint(one_each, 1, 1)]
    for place, layers in enumerate(sets):
        for layer in layers:
            of_one = np.zeros(width)
            of_one[[starts[layer], cost.size + place]] = 1
            constraints.append(LinearConstraint(of_one[None], -np.inf, 1))
    for limit in limits:
        values = row(limit.values, limit.together)
        # Unit scales: latencies in seconds and squared errors are far below solvers' tolerances.
        unit = max(float(np.abs(values).max()), abs(limit.most)) or 1.0
        constraints.append(LinearConstraint(values[None] / unit, -np.inf, limit.most / unit))
    objective = row(costs, together)
    solution = milp(
        objective / (float(np.abs(objective).max()) or 1.0),
        integrality=np.ones(width, dtype=np.int64),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": gap},
    )
    if solution.x is None:
        return None
    picks = tuple(int(solution.x[a:b].argmax()) for a, b in pairwise(starts))
    spent = total(picked(costs, picks)) - total([each.of(picks) for each in together])
    return Choice(picks, spent, float(solution.mip_gap))


def picked(values: Sequence[Array], picks: Sequence[int]) -> list[float]:
    """Return the value of every layer's pick."""
    return [float(v[i]) for v, i in zip(values, picks, strict=True)]


def total(values: Sequence[float]) -> float:
    """Return the sum of `values`."""
    return float(np.sum(values))
