"""One candidate per layer at the least cost within limits: the multiple-choice knapsack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Limit:
    """A bound on the sum of one quantity over the picks.

    Attributes
    ----------
    values : sequence of ndarray
        For every layer one value per candidate.
    most : float
        The largest sum.
    """

    values: Sequence[Array]
    most: float


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


def choose(costs: Sequence[Array], limits: Sequence[Limit], *, gap: float = 1e-4) -> Choice | None:
    """Minimise the sum of costs within all limits.

    Solved by branch and bound on the mixed-integer program (HiGHS, through scipy).

    Parameters
    ----------
    costs : sequence of ndarray
        For every layer one value per candidate.
    limits : sequence of Limit
        Their values in the same order.
    gap : float
        Relative gap at which the solver may stop.

    Returns
    -------
    Choice or None
        None if no picks are within the limits.
    """
    for limit in limits:
        if total([value.min() for value in limit.values]) > limit.most:
            return None
    # Unit scales: latencies in seconds and squared errors lie far below the solver's tolerances.
    cost = np.concatenate(costs)
    layer_of = np.repeat(np.arange(len(costs)), [c.size for c in costs])
    one_each = sparse.csr_array(
        (np.ones(cost.size), (layer_of, np.arange(cost.size))), shape=(len(costs), cost.size)
    )
    constraints = [LinearConstraint(one_each, 1, 1)]
    for limit in limits:
        row = np.concatenate(limit.values)
        unit = max(float(np.abs(row).max()), abs(limit.most)) or 1.0
        constraints.append(LinearConstraint(row[None] / unit, -np.inf, limit.most / unit))
    solution = milp(
        cost / (float(np.abs(cost).max()) or 1.0),
        integrality=np.ones(cost.size, dtype=np.int64),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": gap},
    )
    if solution.x is None:
        return None
    starts = np.cumsum([0, *(c.size for c in costs)])
    picks = tuple(int(solution.x[a:b].argmax()) for a, b in pairwise(starts))
    return Choice(picks, total(picked(costs, picks)), float(solution.mip_gap))


def picked(values: Sequence[Array], picks: Sequence[int]) -> list[float]:
    """Return the value of every layer's pick."""
    return [float(v[i]) for v, i in zip(values, picks, strict=True)]


def total(values: Sequence[float]) -> float:
    """Return the sum of `values`."""
    return float(np.sum(values))


def undominated(cost: Array, damage: Array) -> NDArray[np.int64]:
    """Return the candidates that no other beats in both cost and damage, by rising cost."""
    order = np.lexsort((damage, cost))
    best = np.minimum.accumulate(np.concatenate(([np.inf], damage[order][:-1])))
    return order[damage[order] < best].astype(np.int64)
