"""The command `cost`."""

from __future__ import annotations

from onnx_lowrank.cli.options import (
    InputShapes,
    Json,
    Layers,
    Model,
    PlanFile,
    Quiet,
    read_plan,
    read_shapes,
)
from onnx_lowrank.cli.output import print_result


def cost(
    model: Model,
    layer: Layers = None,
    plan: PlanFile = None,
    input_shape: InputShapes = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Count operations and parameters before and after a plan, without fitting anything."""
    from onnx_lowrank.documents import document
    from onnx_lowrank.pipelines import inspect as pipeline
    from onnx_lowrank.report import tables

    report = pipeline.cost(
        model, plan=read_plan(layer, plan), input_shapes=read_shapes(input_shape)
    )
    print_result(
        lambda: document("cost", report.to_dict()),
        lambda: tables.print_cost(report),
        as_json=as_json,
        quiet=quiet,
    )
