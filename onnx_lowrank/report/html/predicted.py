"""What an estimate predicts."""

from __future__ import annotations

from typing import Any

from onnx_lowrank.report.html.cells import form, percent
from onnx_lowrank.report.html.content import Block, Table
from onnx_lowrank.report.html.runs import Run


def predicted(run: Run) -> list[Block]:
    """Return the predicted frontier, and what layers may gain."""
    if run.kind != "estimate":
        return []
    points = [("low rank", point) for point in run.data["frontier"]]
    points += [("8-bit Convs", run.data["int8"])] if run.data["int8"] else []
    columns = ("models", "SQNR in dB", "time", "from", "to", "layers")
    layers = tuple(
        (layer["name"], percent(layer["share"]), form(layer["time_at_half"], "{:.2f}"))
        for layer in run.data["layers"]
    )
    return [
        Table(
            f"{run.name}: time over the original's, predicted",
            columns,
            tuple((name, *_cells(point)) for name, point in points),
        ),
        Table(
            f"{run.name}: layers",
            ("layer", "share of the time in %", "time at half of its MACs"),
            layers,
        ),
    ]


def _cells(point: dict[str, Any]) -> tuple[str, ...]:
    ratios = (form(point[key], "{:.2f}") for key in ("ratio", "low", "high"))
    return (form(point["sqnr_db"], "{:.0f}"), *ratios, form(point["layers"], "{}"))
