"""The command `compress`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from onnx_lowrank.cli.options import (
    Data,
    InputShapes,
    Json,
    Layers,
    Limit,
    MaxDrop,
    MinSqnr,
    MinTop1,
    Model,
    PlanFile,
    Preset,
    Seed,
    read_plan,
    read_shapes,
    read_tolerance,
)
from onnx_lowrank.cli.output import print_json, show_progress


def compress(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the new model.")],
    layer: Layers = None,
    plan: PlanFile = None,
    save_plan: Annotated[
        Path | None, typer.Option("--save-plan", metavar="FILE", help="Write the plan used.")
    ] = None,
    data: Data = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            "--calibrate",
            metavar="SOURCE",
            help="Data, other than --data, whose output error the fits minimise.",
        ),
    ] = None,
    calibrate_limit: Annotated[
        int | None,
        typer.Option("--calibrate-limit", min=1, help="Use at most this many of them."),
    ] = None,
    asymmetric: Annotated[
        bool,
        typer.Option(
            "--asymmetric", help="Fit each layer to the inputs it will see in the new model."
        ),
    ] = False,
    preprocess: Preset = None,
    limit: Limit = None,
    input_shape: InputShapes = None,
    lowering: Annotated[
        Literal["standard", "portable", "auto"],
        typer.Option(
            "--lowering",
            help="Standard ops; portable nodes, which run anywhere and faster with the kernels; "
            "or portable where the kernels load.",
        ),
    ] = "standard",
    min_sqnr: MinSqnr = None,
    max_drop: MaxDrop = None,
    min_top1: MinTop1 = None,
    seed: Seed = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Allow the output to overwrite the input.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Replace layers by low-rank subgraphs, compare with the original, and write the result."""
    from onnx_lowrank import api
    from onnx_lowrank.report import tables

    api.check_output(output, source=model, force=force)  # before the work, not after it
    if save_plan is not None:
        api.check_output(save_plan)
    with show_progress() as progress:
        result = api.compress(
            model,
            plan=read_plan(layer, plan),
            data=data,
            calibration=calibrate,
            calibration_limit=calibrate_limit,
            asymmetric=asymmetric,
            preprocess=preprocess,
            limit=limit,
            input_shapes=read_shapes(input_shape),
            tolerance=read_tolerance(min_sqnr, max_drop, min_top1),
            lowering=lowering,
            seed=seed,
            progress=progress,
        )
    result.save(output, force=force)
    if save_plan is not None:
        api.write_text(save_plan, json.dumps(result.plan.to_dict(), indent=2) + "\n")
    if as_json:
        print_json({**result.report.to_dict(), "output": str(output)})
    else:
        tables.print_compress(result.report)
        print(f"wrote {output}")
    report = result.report.verification
    return 0 if report is None or report.passed else 1
