"""One candidate per layer at the least cost within limits: the multiple-choice knapsack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from onnx_lowrank.processes import without_stdout
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


@dataclass(frozen=True, eq=False)
class Conflict:
    """What is paid once where a layer has one of some candidates, and any other one of some.

    Attributes
    ----------
    cost : float
        Added to the sum, 0 or more.
    first : (int, ndarray of bool) or None
        Place of a layer, and which of its candidates count; None where it is paid whatever the
        layer has.
    others : tuple of (int, ndarray of bool)
        Likewise, one or more; one that counts is enough.
    """

    cost: float
    first: tuple[int, NDArray[np.bool_]] | None
    others: tuple[tuple[int, NDArray[np.bool_]], ...]

    def of(self, picks: Sequence[int]) -> float:
        """Return what some picks pay."""
        met = self.first is None or bool(self.first[1][picks[self.first[0]]])
        return self.cost if met and any(mask[picks[i]] for i, mask in self.others) else 0.0


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
    conflicts : tuple of Conflict
        What is added to it, such as the time of a change of layout.
    """

    values: Sequence[Array]
    most: float
    together: tuple[Together, ...] = ()
    conflicts: tuple[Conflict, ...] = ()


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
    conflicts: Sequence[Conflict] = (),
    gap: float = 1e-4,
) -> Choice | None:
    """Minimise the sum of costs within all limits.

    Solved by branch and bound on the mixed-integer program (HiGHS, through scipy). At times
    HiGHS prints a line on stdout, even with its output switched off, which would spoil JSON there.

    Parameters
    ----------
    costs : sequence of ndarray
        For every layer one value per candidate.
    limits : sequence of Limit
        Their values in the same order.
    together : sequence of Together
        What comes off the sum of costs.
    conflicts : sequence of Conflict
        What is added to it.
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
    # And one for each conflict: the solver takes the least that its constraints allow.
    paid = [*conflicts, *(each for limit in limits for each in limit.conflicts)]
    clashes = list(dict.fromkeys(paid))
    width = cost.size + len(sets) + len(clashes)

    def row(
        values: Sequence[Array], savings: Sequence[Together], added: Sequence[Conflict]
    ) -> Array:
        extra = np.zeros(len(sets) + len(clashes))
        for each in savings:
            extra[sets.index(each.layers)] -= each.saving
        for clash in added:
            extra[len(sets) + clashes.index(clash)] += clash.cost
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
    for place, clash in enumerate(clashes):
        for other in clash.others:
            both = np.zeros(width)
            for layer, mask in (other, *([] if clash.first is None else [clash.first])):
                both[starts[layer] : starts[layer + 1]] += mask
            both[cost.size + len(sets) + place] = -1
            most = 0 if clash.first is None else 1
            constraints.append(LinearConstraint(sparse.csr_array(both[None]), -np.inf, most))
    for limit in limits:
        values = row(limit.values, limit.together, limit.conflicts)
        # Unit scales: latencies in seconds and squared errors are far below solvers' tolerances.
        unit = max(float(np.abs(values).max()), abs(limit.most)) or 1.0
        constraints.append(LinearConstraint(values[None] / unit, -np.inf, limit.most / unit))
    objective = row(costs, together, conflicts)
    with without_stdout():
        solution = milp(
            objective / (float(np.abs(objective).max()) or 1.0),
            integrality=np.concatenate((np.ones(width - len(clashes)), np.zeros(len(clashes)))),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"mip_rel_gap": gap},
        )
    if solution.x is None:
        return None
    picks = tuple(int(solution.x[a:b].argmax()) for a, b in pairwise(starts))
    spent = total(picked(costs, picks)) - total([each.of(picks) for each in together])
    spent += total([each.of(picks) for each in conflicts])
    return Choice(picks, spent, float(solution.mip_gap))


def picked(values: Sequence[Array], picks: Sequence[int]) -> list[float]:
    """Return the value of every layer's pick."""
    return [float(v[i]) for v, i in zip(values, picks, strict=True)]


def total(values: Sequence[float]) -> float:
    """Return the sum of `values`."""
    return float(np.sum(values))
