"""Operations and parameters of a model before and after a plan; nothing is fitted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_lowrank.planning.plan import Plan, PlannableLayer


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one image and weights (biases not counted), before and after.

    ``macs`` and ``macs_new`` are None where the model does not fix the input size.
    """

    name: str
    scheme: str | None
    macs: int | None
    macs_new: int | None
    params: int
    params_new: int

    @property
    def mac_reduction(self) -> float | None:
        """How many times fewer multiply-adds, or None where they are unknown."""
        if self.macs is None or not self.macs_new:
            return None
        return self.macs / self.macs_new

    @property
    def param_reduction(self) -> float | None:
        """How many times fewer parameters, or None where there are none."""
        return self.params / self.params_new if self.params_new else None

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
        }


def plan_costs(layers: Sequence[PlannableLayer], plan: Plan) -> tuple[Cost, ...]:
    """Return the cost of every layer whose shape is known, in graph order."""
    costs = []
    for layer, decision in zip(layers, plan.decisions, strict=True):
        conv, scheme = layer.spec, decision.scheme
        if conv is None:
            continue
        costs.append(
            Cost(
                name=layer.name,
                scheme=scheme.spec if scheme else None,
                macs=conv.macs,
                macs_new=scheme.macs(conv) if scheme else conv.macs,
                params=conv.params,
                params_new=scheme.params(conv) if scheme else conv.params,
            )
        )
    return tuple(costs)


def total_cost(costs: Iterable[Cost]) -> Cost:
    """Return the sum of `costs`; multiply-adds are None if any of them is."""
    costs = tuple(costs)
    return Cost(
        name="total",
        scheme=None,
        macs=_sum(cost.macs for cost in costs),
        macs_new=_sum(cost.macs_new for cost in costs),
        params=sum(cost.params for cost in costs),
        params_new=sum(cost.params_new for cost in costs),
    )


def _sum(values: Iterable[int | None]) -> int | None:
    known = tuple(values)
    return None if None in known else sum(v for v in known if v is not None)
