from __future__ import annotations

from typing import Any

import pytest

from onnx_lowrank.errors import PlanError
from onnx_lowrank.planning.budget import Budget


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        ({}, "the budget is empty"),
        ({"max_drop": -1.0}, "points from 0"),
        ({"max_drop": 100.0}, "points from 0"),
        ({"min_speedup": 0.5}, "1 or more"),
        ({"macs": 0.0}, "above 0"),
        ({"params": 1.5}, "up to 1"),
        ({"size_mb": 0.0}, "more than 0"),
        ({"macs": 0.5, "objective": "joules"}, "choose one of latency, macs, params"),
    ],
)
def test_a_budget_out_of_range_is_refused(bounds: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        Budget(**bounds)


def test_bounds_on_quality_and_targets_are_told_apart() -> None:
    assert Budget(max_drop=1).limits_quality
    assert not Budget(max_drop=1).has_target
    assert Budget(min_sqnr_db=30).limits_quality
    assert Budget(size_mb=3).has_target
    assert not Budget(min_speedup=2).limits_quality


def test_a_drop_of_a_score_is_in_its_own_units() -> None:
    assert Budget(max_drop=250.0, score="metrics:psnr").limits_quality
    for wrong in (-1.0, float("inf"), float("nan")):
        with pytest.raises(PlanError, match="in the score's units"):
            Budget(max_drop=wrong, score="metrics:psnr")


@pytest.mark.parametrize(
    "name", ["max_drop", "min_sqnr_db", "min_speedup", "macs", "params", "size_mb"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 10**400, "1", True])
def test_every_bound_is_a_finite_number(name: str, value: Any) -> None:
    with pytest.raises(PlanError, match=f"^{name} is .*; give "):
        Budget(**{name: value})


def test_decibels_are_those_that_are_reported() -> None:
    assert Budget(min_sqnr_db=-300.0).limits_quality
    with pytest.raises(PlanError, match="give dB from -300 to 300"):
        Budget(min_sqnr_db=301.0)
