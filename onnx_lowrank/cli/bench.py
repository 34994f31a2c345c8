"""The command `bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from onnx_lowrank.bounds import MOST_BATCH, MOST_REPEATS, MOST_SECONDS, MOST_WORKERS
from onnx_lowrank.cli.gate import Writes
from onnx_lowrank.cli.options import (
    Batches,
    Data,
    Engine,
    InputShapes,
    Json,
    Preset,
    Quiet,
    Seed,
    Threads,
    count,
    read_counts,
    read_shapes,
    within,
)
from onnx_lowrank.cli.output import print_result, show_progress
from onnx_lowrank.errors import DataError, PlanError


def bench(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL [OTHER]...",
            help="ONNX files; the others are compared with the first.",
            show_default=False,
        ),
    ],
    engine: Engine = "cpu",
    threads: Threads = None,
    batch: Batches = None,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds",
            callback=within("give seconds above 0, up to a day", above=0, most=MOST_SECONDS),
            help="Time for the runs of each model, roughly.",
        ),
    ] = 10.0,
    repeats: Annotated[
        int, count("--repeats", help="How often all models are loaded anew.", most=MOST_REPEATS)
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
    save_latency: Annotated[
        Path | None,
        typer.Option(
            "--save-latency",
            metavar="FILE",
            help="Time instead the layers of one MODEL and all candidates for them; a search on "
            "another machine takes the file by --latency.",
        ),
        Writes(),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time models against each other: latency, throughput, memory, and the ratio's interval."""
    from onnx_lowrank.documents import document
    from onnx_lowrank.pipelines.benchmark import benchmark
    from onnx_lowrank.report import bench_tables

    if save_latency is not None:
        if len(models) > 1 or int8 or openvino or data is not None:
            raise PlanError(
                "--save-latency times the layers of one model with random inputs; "
                "leave other models, --int8, --openvino and --data out"
            )
        _save_latency(
            models[0],
            save_latency,
            engine=engine,
            threads=_one_count("--threads", threads, MOST_WORKERS),
            batch=_one_count("--batch", batch, MOST_BATCH),
            input_shape=input_shape,
            seed=seed,
            as_json=as_json,
            quiet=quiet,
        )
        return
    with show_progress(quiet=quiet) as progress:
        report = benchmark(
            models,
            engine=engine,
            threads=read_counts("--threads", threads, most=MOST_WORKERS),
            batches=read_counts("--batch", batch, most=MOST_BATCH),
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


def _save_latency(
    model: Path,
    path: Path,
    *,
    engine: str,
    threads: int | None,
    batch: int | None,
    input_shape: list[str] | None,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    from onnx_lowrank.files import write_text
    from onnx_lowrank.report.console import say
    from onnx_lowrank.search.latency_table import measure_latencies

    with show_progress(quiet=quiet) as progress:
        table = measure_latencies(
            model,
            engine=engine,
            threads=threads,
            batch=batch,
            input_shapes=read_shapes(input_shape),
            seed=seed,
            progress=progress,
        )
    write_text(path, json.dumps(table.to_dict(), indent=1) + "\n")
    print_result(
        table.to_dict,
        lambda: say(f"wrote {path}: {len(table.known)} latencies on {table.origin}"),
        as_json=as_json,
        quiet=quiet,
    )


def _one_count(option: str, text: str | None, most: int) -> int | None:
    counts = read_counts(option, text, most=most)
    if len(counts) > 1:
        raise DataError(f"a table of latencies is of one setting; give {option} one number")
    return counts[0]
