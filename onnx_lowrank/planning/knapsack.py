"""One candidate per layer at the least cost within a budget: the multiple-choice knapsack."""

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
class Choice:
    """A solution of the knapsack.

    Attributes
    ----------
    picks : tuple of int
        Index of the candidate of every layer.
    cost, damage : float
        Sums over the picks.
    gap : float
        Proven relative distance of `cost` from the optimum.
    """

    picks: tuple[int, ...]
    cost: float
    damage: float
    gap: float


def choose(
    costs: Sequence[Array], damages: Sequence[Array], budget: float, *, gap: float = 1e-4
) -> Choice | None:
    """Minimise the sum of costs with the sum of damages within `budget`.

    Solved by branch and bound on the mixed-integer program (HiGHS, through scipy).

    Parameters
    ----------
    costs, damages : sequence of ndarray
        For every layer one value per candidate, damages not negative.
    budget : float
        The most damage in all.
    gap : float
        Relative gap at which the solver may stop.

    Returns
    -------
    Choice or None
        None if even the least damage of every layer exceeds the budget.
    """
    if sum(float(d.min()) for d in damages) > budget:
        return None
    # Unit scales: latencies in seconds and squared errors lie far below the solver's tolerances.
    cost, damage = np.concatenate(costs), np.concatenate(damages)
    cost_unit = float(np.abs(cost).max()) or 1.0
    damage_unit = max(float(damage.max()), budget) or 1.0
    layer_of = np.repeat(np.arange(len(costs)), [c.size for c in costs])
    one_each = sparse.csr_array(
        (np.ones(cost.size), (layer_of, np.arange(cost.size))), shape=(len(costs), cost.size)
    )
    solution = milp(
        cost / cost_unit,
        integrality=np.ones(cost.size, dtype=np.int64),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(damage[None] / damage_unit, -np.inf, budget / damage_unit),
        ],
        options={"mip_rel_gap": gap},
    )
    if solution.x is None:
        return None
    starts = np.cumsum([0, *(c.size for c in costs)])
    picks = tuple(int(solution.x[a:b].argmax()) for a, b in pairwise(starts))
    return Choice(
        picks,
        cost=sum(float(c[i]) for c, i in zip(costs, picks, strict=True)),
        damage=sum(float(d[i]) for d, i in zip(damages, picks, strict=True)),
        gap=float(solution.mip_gap),
    )


def undominated(cost: Array, damage: Array) -> NDArray[np.int64]:
    """Return the candidates that no other beats in both cost and damage, by rising cost."""
    order = np.lexsort((damage, cost))
    best = np.minimum.accumulate(np.concatenate(([np.inf], damage[order][:-1])))
    return order[damage[order] < best].astype(np.int64)
