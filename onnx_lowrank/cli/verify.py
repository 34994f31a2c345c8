"""The command `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnx_lowrank.cli.options import (
    Data,
    InputShapes,
    Json,
    Labels,
    Limit,
    MaxDrop,
    MinSqnr,
    MinTop1,
    Preset,
    Quiet,
    ScoreOption,
    Seed,
    Strict,
    read_shapes,
    read_tolerance,
)
from onnx_lowrank.cli.output import print_result, show_progress


def verify(
    original: Annotated[Path, typer.Argument(help="The original model.", show_default=False)],
    compressed: Annotated[Path, typer.Argument(help="The rewritten model.", show_default=False)],
    data: Data = None,
    preprocess: Preset = None,
    labels: Labels = None,
    strict: Strict = False,
    limit: Limit = None,
    input_shape: InputShapes = None,
    min_sqnr: MinSqnr = None,
    max_drop: MaxDrop = None,
    min_top1: MinTop1 = None,
    score: ScoreOption = None,
    engine: Annotated[
        str | None,
        typer.Option(
            *("--engine", "--provider"),
            metavar="cpu|cuda|openvino",
            help="Where models run: onnxruntime on the CPU and, if that works here, on CUDA by "
            "default.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Run both models on the same inputs and compare every output; exit 1 if out of tolerance."""
    from onnx_lowrank.documents import measured
    from onnx_lowrank.pipelines import verify as pipeline
    from onnx_lowrank.report import tables

    with show_progress(quiet=quiet) as progress:
        progress("verifying", 0, 1)
        report = pipeline.verify(
            original,
            compressed,
            data=data,
            preprocess=preprocess,
            labels_from=labels,
            strict=strict,
            limit=limit,
            input_shapes=read_shapes(input_shape),
            tolerance=read_tolerance(min_sqnr, max_drop, min_top1, score=score),
            score=score,
            engine=engine,
            seed=seed,
        )
    print_result(
        lambda: measured("verify", report.to_dict(), provider=next(iter(report.results))),
        lambda: tables.print_verification(report),
        as_json=as_json,
        quiet=quiet,
    )
    return 0 if report.passed else 1
