"""The command `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from onnx_lowrank.cli.options import (
    Batches,
    Data,
    InputShapes,
    Json,
    Preset,
    Provider,
    Quiet,
    Seed,
    Threads,
    read_counts,
    read_shapes,
)
from onnx_lowrank.cli.output import print_result, show_progress


def bench(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL [OTHER]...",
            help="ONNX files; the others are compared with the first.",
            show_default=False,
        ),
    ],
    provider: Provider = "cpu",
    threads: Threads = None,
    batch: Batches = None,
    seconds: Annotated[
        float, typer.Option("--seconds", help="Time for the runs of each model, roughly.")
    ] = 10.0,
    repeats: Annotated[
        int, typer.Option("--repeats", help="How often all models are loaded anew.")
    ] = 10,
    int8: Annotated[
        bool, typer.Option("--int8", help="Add onnxruntime's int8 quantisation of the first.")
    ] = False,
    openvino: Annotated[
        bool, typer.Option("--openvino", help="Add the first in OpenVINO, if that is installed.")
    ] = False,
    data: Data = None,
    preprocess: Preset = None,
    input_shape: InputShapes = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time models against each other: latency, throughput, memory, and the ratio's interval."""
    from onnx_lowrank import benchmarking
    from onnx_lowrank.documents import document
    from onnx_lowrank.report import bench_tables

    with show_progress(quiet=quiet) as progress:
        report = benchmarking.benchmark(
            models,
            provider=cast("Any", provider),
            threads=read_counts("--threads", threads),
            batches=read_counts("--batch", batch),
            repeats=repeats,
            seconds=seconds,
            int8=int8,
            openvino=openvino,
            data=data,
            preprocess=preprocess,
            input_shapes=read_shapes(input_shape),
            seed=seed,
            progress=progress,
        )
    print_result(
        lambda: document("bench", report.to_dict()),
        lambda: bench_tables.print_benchmark(report),
        as_json=as_json,
        quiet=quiet,
    )
