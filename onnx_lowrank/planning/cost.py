"""Operations, parameters and bytes of a model before and after a plan; nothing is fitted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from onnx_lowrank.planning.plan import Decision, Plan, PlannableLayer
from onnx_lowrank.storage import StoredWeight, count_stored, stored_after


class CountedLayer(PlannableLayer, Protocol):
    """What is known of the cost of a layer, one that cannot be approximated included."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its weight, and of the factors in its place."""
        ...

    @property
    def macs(self) -> int | None:
        """Multiply-adds of one image, or None where they are unknown."""
        ...

    @property
    def params(self) -> int | None:
        """Number of weights, or None where it is unknown."""
        ...

    @property
    def weights(self) -> tuple[StoredWeight, ...] | None:
        """Where they are stored, or None where that is unknown."""
        ...


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one image, weights (biases not counted) and their bytes, before and after.

    None stands for what is unknown: ``macs`` and ``macs_new`` where the model does not fix the
    input size, the others for weights that a function is given.

    Attributes
    ----------
    weights : tuple of StoredWeight or None
        Where the layer's weights are stored: a total counts every tensor once. None where that is
        unknown: a total does not count them.
    """

    name: str
    scheme: str | None
    macs: int | None
    macs_new: int | None
    params: int | None
    params_new: int | None
    bytes: int | None = None
    bytes_new: int | None = None
    weights: tuple[StoredWeight, ...] | None = None

    @property
    def mac_reduction(self) -> float | None:
        """How many times fewer multiply-adds, or None where they are unknown."""
        return _times_fewer(self.macs, self.macs_new)

    @property
    def param_reduction(self) -> float | None:
        """How many times fewer parameters, or None where there are none."""
        return _times_fewer(self.params, self.params_new)

    def to_dict(self) -> dict[str, Any]:
        """Return the cost as JSON-ready data."""
        return {
            "name": self.name,
            "scheme": self.scheme,
            "macs": self.macs,
            "macs_new": self.macs_new,
            "mac_reduction": self.mac_reduction,
            "params": self.params,
            "params_new": self.params_new,
            "param_reduction": self.param_reduction,
            "bytes": self.bytes,
            "bytes_new": self.bytes_new,
        }


def plan_costs(layers: Sequence[CountedLayer], plan: Plan) -> tuple[Cost, ...]:
    """Return the cost of every layer, in graph order."""
    costs = []
    for layer, decision in zip(layers, plan.decisions, strict=True):
        conv, scheme = layer.spec, decision.scheme
        size = None if layer.weights is None else sum(weight.bytes for weight in layer.weights)
        macs_new, params_new, bytes_new = layer.macs, layer.params, size
        if scheme is not None and conv is not None:
            macs_new, params_new = scheme.macs(conv), scheme.params(conv)
            bytes_new = params_new * layer.dtype.itemsize
        costs.append(
            Cost(
                name=layer.name,
                scheme=decision.spec,
                macs=layer.macs,
                macs_new=macs_new,
                params=layer.params,
                params_new=params_new,
                bytes=size,
                bytes_new=bytes_new,
                weights=layer.weights,
            )
        )
    return tuple(costs)


def untouched(layers: Iterable[CountedLayer]) -> Plan:
    """Return the plan that keeps all layers."""
    return Plan(tuple(Decision(layer.name, None, layer.reason or "") for layer in layers))


def total_cost(costs: Iterable[Cost]) -> Cost:
    """Return the sum of `costs`, each stored tensor counted once.

    Multiply-adds are None if those of any layer are unknown. Parameters and bytes are those that
    are known to be stored: weights that are no constants do not count.
    """
    costs = tuple(costs)
    kept = [weight for cost in costs if cost.scheme is None for weight in cost.weights or ()]
    factors = [cost for cost in costs if cost.scheme is not None]
    replaced = [weight for cost in factors for weight in cost.weights or ()]
    params, size = count_stored((*kept, *replaced))
    params_new, size_new = stored_after(kept, replaced)
    return Cost(
        name="total",
        scheme=None,
        macs=_sum(cost.macs for cost in costs),
        macs_new=_sum(cost.macs_new for cost in costs),
        params=params,
        params_new=params_new + sum(cost.params_new or 0 for cost in factors),
        bytes=size,
        bytes_new=size_new + sum(cost.bytes_new or 0 for cost in factors),
        weights=(),
    )


def known_cost(costs: Iterable[Cost]) -> Cost:
    """Return the sum of `costs` with multiply-adds of only those layers whose are known."""
    found = []
    for cost in costs:
        known = cost.macs is not None and cost.macs_new is not None
        found.append(cost if known else replace(cost, macs=0, macs_new=0))
    return total_cost(found)


def uncounted(costs: Iterable[Cost]) -> dict[str, tuple[str, ...]]:
    """Return the names of the layers that a total leaves out of "macs" and of "params"."""
    costs = tuple(costs)
    return {
        "macs": tuple(cost.name for cost in costs if None in (cost.macs, cost.macs_new)),
        "params": tuple(cost.name for cost in costs if cost.weights is None),
    }


def _sum(values: Iterable[int | None]) -> int | None:
    known = tuple(values)
    return None if None in known else sum(v for v in known if v is not None)


def _times_fewer(old: int | None, new: int | None) -> float | None:
    return None if old is None or not new else old / new
