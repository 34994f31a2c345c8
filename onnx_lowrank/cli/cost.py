"""The command `cost`."""

from __future__ import annotations

from onnx_lowrank.cli.options import (
    InputShapes,
    Json,
    Layers,
    Model,
    PlanFile,
    read_plan,
    read_shapes,
)
from onnx_lowrank.cli.output import print_json


def cost(
    model: Model,
    layer: Layers = None,
    plan: PlanFile = None,
    input_shape: InputShapes = None,
    as_json: Json = False,
) -> None:
    """Count operations and parameters before and after a plan, without fitting anything."""
    from onnx_lowrank import api
    from onnx_lowrank.report import tables

    report = api.cost(model, plan=read_plan(layer, plan), input_shapes=read_shapes(input_shape))
    if as_json:
        print_json(report.to_dict())
    else:
        tables.print_cost(report)
