"""The command `sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnx_lowrank.bounds import MOST_WORKERS
from onnx_lowrank.cli.gate import Writes
from onnx_lowrank.cli.options import (
    CalibrateLimit,
    InputShapes,
    Json,
    Labels,
    Limit,
    Model,
    OrtEngine,
    Preset,
    Quiet,
    Seed,
    Strict,
    read_shapes,
)
from onnx_lowrank.cli.output import print_result, show_progress

if TYPE_CHECKING:
    from onnx_lowrank.pipelines.sweeping import SweepReport


def sweep(
    model: Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder of the results; a sweep goes on there."
        ),
        Writes(("points.jsonl", "sweep.*", "tables.md", "*.png", "*.svg", "filters", "work")),
    ],
    scheme: Annotated[
        list[str],
        typer.Option(
            "--scheme",
            metavar="SPEC",
            help="Scheme to try, e.g. 'mono:C=4/6/8' (three values), or of some layers only, "
            "'conv1=mono:C=4'; repeat as needed.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data", metavar="SOURCE", help="Held-out samples that each point is measured on."
        ),
    ],
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", metavar="NAME", help="Layer, name or glob; all if not given."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help="What the fits minimise: frobenius, covariance, mahalanobis, combined; repeat.",
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option("--calibrate", metavar="SOURCE", help="Other samples, which the metrics see."),
    ] = None,
    calibrate_limit: CalibrateLimit = None,
    network: Annotated[
        bool,
        typer.Option(
            "--network", help="Run the whole network for each point: accuracy, or agreement."
        ),
    ] = False,
    jobs: Annotated[
        int,
        typer.Option(
            *("--jobs", "-j"), min=-1, max=MOST_WORKERS, help="Processes; -1 for one on each core."
        ),
    ] = 1,
    engine: OrtEngine = "cpu",
    preprocess: Preset = None,
    limit: Limit = None,
    labels: Labels = None,
    strict: Strict = False,
    input_shape: InputShapes = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try schemes, ranks and metrics on each layer, and measure them on held-out data."""
    from onnx_lowrank.pipelines import sweeping
    from onnx_lowrank.report import sweep_plots, sweep_tables

    samples = sweeping.SweepData(
        held_out=data,
        calibration=calibrate,
        preprocess=preprocess,
        labels_from=labels,
        limit=limit,
        calibration_limit=calibrate_limit,
        input_shapes=read_shapes(input_shape),
        strict=strict,
    )
    with show_progress(quiet=quiet) as progress:
        report = sweeping.sweep(
            model,
            output,
            samples,
            schemes=scheme,
            layers=layer or ("*",),
            metrics=metric or (("frobenius", "covariance") if calibrate else ("frobenius",)),
            network=network,
            jobs=jobs,
            engine=engine,
            seed=seed,
            progress=progress,
        )
    files = sweep_tables.write_tables(report, output) + sweep_plots.draw(report, output)
    print_result(
        lambda: {**report.to_document(), "output": str(output)},
        lambda: _print_tables(report, files, output),
        as_json=as_json,
        quiet=quiet,
    )


def _print_tables(report: SweepReport, files: tuple[str, ...], output: Path) -> None:
    from onnx_lowrank.report import sweep_tables
    from onnx_lowrank.report.console import say

    sweep_tables.print_sweep(report)
    say(f"wrote sweep.json, sweep.csv, {', '.join(files)} in {output}")
