"""The command `profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnx_lowrank.bounds import MOST_BATCH, MOST_REPEATS
from onnx_lowrank.cli.options import (
    Data,
    InputShapes,
    Json,
    Model,
    OrtEngine,
    Preset,
    Quiet,
    Seed,
    count,
    read_shapes,
    workers,
)
from onnx_lowrank.cli.output import print_result, show_progress


def profile(
    model: Model,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", metavar="OTHER", help="Show the rewritten model beside it."),
    ] = None,
    engine: OrtEngine = "cpu",
    threads: Annotated[int | None, workers("--threads", "Intra-op threads.")] = None,
    batch: Annotated[int | None, count("--batch", help="Samples at once.", most=MOST_BATCH)] = None,
    runs: Annotated[int, count("--runs", help="Runs to average over.", most=MOST_REPEATS)] = 8,
    data: Data = None,
    preprocess: Preset = None,
    input_shape: InputShapes = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the forward time of every layer: mean, deviation, share, and speed."""
    from onnx_lowrank.documents import document
    from onnx_lowrank.pipelines.profile import profile as run
    from onnx_lowrank.report import profile_tables

    with show_progress(quiet=quiet) as progress:
        report = run(
            model,
            compare=compare,
            engine=engine,
            threads=threads,
            batch=batch,
            runs=runs,
            data=data,
            preprocess=preprocess,
            input_shapes=read_shapes(input_shape),
            seed=seed,
            progress=progress,
        )
    print_result(
        lambda: document("profile", report.to_dict()),
        lambda: profile_tables.print_profile(report),
        as_json=as_json,
        quiet=quiet,
    )
