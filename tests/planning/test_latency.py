from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest

from onnx_lowrank.errors import PlanError
from onnx_lowrank.planning.latency import LatencyTable, Timed


class Timer:
    """Counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, keys: Sequence[str]) -> Mapping[str, Timed]:
        self.asked.append(list(keys))
        return {key: Timed(0.1 * len(key), 0.5, 0.4, 0.6) for key in keys}


def test_only_what_is_missing_is_timed_and_always_beside_the_dense_layer() -> None:
    table, timer = LatencyTable(), Timer()
    table.measured(["dense", "a", "b"], timer)
    table.measured(["dense", "a", "b"], timer)
    table.measured(["dense", "a", "c"], timer)
    assert timer.asked == [["dense", "a", "b"], ["dense", "c"]]


def test_a_table_survives_json_and_anything_else_is_refused() -> None:
    table = LatencyTable({"k": Timed(0.001, 0.5, 0.45, 0.55)})
    again = LatencyTable.from_dict(json.loads(json.dumps(table.to_dict())))
    assert again.known == table.known
    for wrong in (None, [], {}, {"version": 2, "latencies": {}}, {"version": 1, "latencies": []}):
        with pytest.raises(PlanError, match="not a table of latencies"):
            LatencyTable.from_dict(wrong)


def test_only_an_interval_below_one_pays() -> None:
    assert Timed(1, 0.9, 0.8, 0.99).pays
    assert not Timed(1, 0.9, 0.8, 1.01).pays
