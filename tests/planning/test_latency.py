from __future__ import annotations

import json
from typing import Any

import pytest

from onnx_lowrank.errors import PlanError
from onnx_lowrank.planning.latency import SavedLatencies, Timed

MACHINE = {
    "cpu": "some CPU",
    "cores": 2,
    "instruction_sets": [],
    "platform": "Linux x86_64",
    "kernel": "6",
    "python": "3.12",
    "versions": {"onnx": "1", "onnxruntime": "2"},
    "custom_ops": False,
}


def saved(*assembled: tuple[float, Timed], **other: Any) -> SavedLatencies:
    values: dict[str, Any] = {
        "model": "m",
        "name": "net.onnx",
        "machine": MACHINE,
        "provider": "cpu",
        "threads": 1,
        "batch": 1,
        "input_shapes": {"x": (1, 3, 8, 8)},
        "whole": Timed(0.01, 1, 1, 1),
        "assembled": assembled,
        "known": {"k": Timed(0.001, 0.5, 0.45, 0.55)},
    }
    return SavedLatencies(**{**values, **other})


def test_a_saved_table_survives_json() -> None:
    table = saved((0.5, Timed(0.006, 0.6, 0.59, 0.61)), threads=None)
    assert SavedLatencies.from_dict(json.loads(json.dumps(table.to_dict()))) == table


def damaged() -> list[Any]:
    good = saved().to_dict()
    return [
        None,
        [],
        {},
        {**good, "version": 2},
        {**good, "machine": {"cpu": "some CPU"}},
        {**good, "batch": 10**9},
        {**good, "latencies": {"k": [0, 0.5, 0.45, 0.55]}},
        {**good, "kind": "bench"},
        {**good, "latencies": []},
        {**good, "latencies": {"k": [1, 2]}},
        {**good, "latencies": {"k": [0.001, 0.5, 0.6, 0.7]}},  # not within its interval
        {**good, "whole": [0.001, 1, 1, float("inf")]},
        {**good, "whole": [float("nan"), 1, 1, 1]},
        {name: value for name, value in good.items() if name != "machine"},
    ]


@pytest.mark.parametrize("wrong", damaged())
def test_anything_else_is_refused(wrong: Any) -> None:
    with pytest.raises(PlanError, match=r"not a table of latencies: .* bench --save-latency"):
        SavedLatencies.from_dict(wrong)


def test_savings_are_scaled_to_those_of_whole_models() -> None:
    table = saved(
        (0.5, Timed(1, 0.6, 0.58, 0.62)),  # 0.8 of what was told
        (0.2, Timed(1, 0.52, 0.51, 0.53)),  # 0.6
        (0.4, Timed(1, 0.52, 0.52, 0.52)),  # 0.8
        (1.2, Timed(1, 1.1, 1.1, 1.1)),  # nothing told to be saved: it says nothing
    )
    assert table.scale == pytest.approx(0.8)
    # The second was told to take 0.36, with the scale, and took up to 0.53.
    forecast = table.forecast(0.5)
    assert forecast.ratio == 0.5
    assert forecast.seconds == pytest.approx(0.005)
    assert forecast.high == pytest.approx(0.5 * 0.53 / 0.36)
    assert forecast.low == pytest.approx(0.5 * 0.36 / 0.53)


def test_without_assembled_models_the_layers_are_believed() -> None:
    assert saved().scale == 1
    assert saved().forecast(0.3) == Timed(0.003, 0.3, 0.3, 0.3)


def test_the_machine_is_named() -> None:
    assert saved().origin == "some CPU, onnxruntime 2, cpu, 1 thread, batch 1"
    assert "threads as the engine chooses" in saved(threads=None).origin


def test_only_an_interval_below_one_pays() -> None:
    assert Timed(1, 0.9, 0.8, 0.99).pays
    assert not Timed(1, 0.9, 0.8, 1.01).pays
