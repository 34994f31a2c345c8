"""Totals count each stored tensor once, and say what they leave out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import PlanError
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.planning.cost import known_cost, plan_costs, total_cost, uncounted, untouched
from onnx_lowrank.planning.plan import Rule, decide
from onnx_lowrank.storage import StoredTensor, StoredWeight

SPEC = ConvSpec(
    in_channels=64,
    out_channels=64,
    kernel=(3, 3),
    strides=(1, 1),
    dilations=(1, 1),
    pads=(1, 1, 1, 1),
    input_size=(6, 6),
    output_size=(6, 6),
)
PARAMS = 64 * 64 * 9
FACTORS = 2 * 64 + 2 * 2 * 9 + 2 * 64  # of tucker2:R1=2,R2=2


def stored(key: str, size: int = 4, *, elsewhere: bool = False) -> tuple[StoredWeight, ...]:
    return (StoredWeight(key, PARAMS, (StoredTensor(key, size * PARAMS, elsewhere),)),)


@dataclass(frozen=True)
class Layer:
    name: str
    weights: tuple[StoredWeight, ...] | None = field(default_factory=lambda: stored("w"))
    spec: ConvSpec | None = SPEC
    reason: str | None = None
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float32))
    macs: int | None = SPEC.macs
    params: int | None = PARAMS


def costs(*layers: Layer, replaced: tuple[str, ...] = ("one",)) -> Any:
    rules = [Rule.parse(f"{name}=tucker2:R1=2,R2=2") for name in replaced]
    return plan_costs(layers, decide(layers, rules))


def test_a_weight_that_two_layers_share_stays_with_the_one_that_is_kept() -> None:
    found = costs(Layer("one"), Layer("two"))
    assert [(cost.params, cost.params_new) for cost in found] == [
        (PARAMS, FACTORS),
        (PARAMS, PARAMS),
    ]
    total = total_cost(found)
    assert (total.params, total.params_new) == (PARAMS, PARAMS + FACTORS)
    assert (total.bytes, total.bytes_new) == (4 * PARAMS, 4 * (PARAMS + FACTORS))
    both = total_cost(costs(Layer("one"), Layer("two"), replaced=("one", "two")))
    assert (both.params, both.params_new) == (PARAMS, 2 * FACTORS)


def test_factors_are_stored_in_the_type_that_the_layer_computes_in() -> None:
    total = total_cost(costs(Layer("one", stored("int8", 1))))
    assert (total.bytes, total.bytes_new) == (PARAMS, 4 * FACTORS)


def test_a_weight_that_something_else_reads_stays() -> None:
    total = total_cost(costs(Layer("one", stored("w", elsewhere=True))))
    assert (total.params, total.params_new) == (PARAMS, PARAMS + FACTORS)
    assert total.bytes_new == 4 * (PARAMS + FACTORS)


def test_a_weight_that_is_no_constant_is_not_stored() -> None:
    total = total_cost(costs(Layer("one"), Layer("two", ())))
    assert (total.params, total.params_new) == (PARAMS, FACTORS)


def test_what_is_unknown_is_said() -> None:
    lost = Layer("lost", None, None, "it is inside a function", macs=None, params=None)
    found = costs(Layer("one"), lost)
    assert uncounted(found) == {"macs": ("lost",), "params": ("lost",)}
    total, known = total_cost(found), known_cost(found)
    assert (total.macs, total.macs_new, total.mac_reduction) == (None, None, None)
    assert (known.macs, known.params, known.params_new) == (SPEC.macs, PARAMS, FACTORS)
    assert uncounted(costs(Layer("one"))) == {"macs": (), "params": ()}


@pytest.mark.parametrize(("bound", "what"), [("macs", "multiply-adds"), ("params", "weights")])
def test_a_bound_that_cannot_be_checked_is_refused(bound: str, what: str) -> None:
    layers = [
        Layer("one"),
        Layer("lost", None, None, "it is inside a function", macs=None, params=None),
    ]
    found = uncounted(plan_costs(layers, untouched(layers)))
    with pytest.raises(PlanError, match=rf"{what} of layer 'lost' cannot be known; .*"):
        Budget(**{bound: 0.5}).check_countable(found, open_sizes=True)
    Budget(min_sqnr_db=10).check_countable(found, open_sizes=True)


def test_bounds_on_the_result_are_checked_on_the_result() -> None:
    shared = total_cost(costs(Layer("one"), Layer("two")))
    (missed,) = Budget(params=0.9).missed(shared, 0)
    assert missed == f"it has {1 + FACTORS / PARAMS:.4f} of the parameters, not 0.9"
    assert Budget(macs=0.6).missed(shared, 0) == ()
    assert Budget(macs=0.4).missed(shared, 0) != ()
    assert Budget(size_mb=0.1).missed(shared, 100_000) == ()
    assert Budget(size_mb=0.1).missed(shared, 100_001) == ("its file has 0.100001 MB, not 0.1",)
    unknown = total_cost(costs(Layer("one"), Layer("lost", None, None, "no", macs=None)))
    (missed,) = Budget(macs=0.9).missed(unknown, 0)
    assert "unknown" in missed
