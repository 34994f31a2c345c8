"""The command line: parsing and printing; every command is one call of the API.

Results go to stdout, messages to stderr. Exit codes: 0 done and within tolerance, 1 checked and
failed, 2 bad input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer

from onnx_lowrank.errors import DataError, OnnxLowRankError, PlanError

if TYPE_CHECKING:
    from onnx_lowrank.api import Progress, Tolerance

# The base of all usage errors has no public name in typer.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="onnx-lowrank",
    help="Make trained CNNs in ONNX faster by low-rank approximation, and prove it.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="NAME=SCHEME",
        help="Replace a layer (name or glob) by a scheme, e.g. 'conv1=mono:C=6'; repeat as needed.",
    ),
]
PlanFile = Annotated[
    Path | None, typer.Option("--plan", metavar="FILE", help="Read the plan from a JSON file.")
]
InputShapes = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="NAME=1,3,224,224",
        help="Shape of an input whose size the model leaves open; repeat as needed.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="Folder of images (class subfolders are labels), .npz file, or module:callable.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preprocess", help="How images become inputs: imagenet, caffe, tf, unit or none."
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Use at most this many samples.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Fixes every random choice.")]
MinSqnr = Annotated[
    float | None,
    typer.Option("--min-sqnr", help="Least signal-to-noise ratio of every output, in dB."),
]
MaxDrop = Annotated[
    float | None,
    typer.Option("--max-drop", help="Most points of accuracy to lose, where labels are given."),
]
MinTop1 = Annotated[
    float | None,
    typer.Option("--min-top1", help="Least share of samples with the same top-1 class, 0 to 1."),
]


Provider = Annotated[
    str, typer.Option("--provider", metavar="cpu|cuda", help="Where onnxruntime runs the models.")
]
Threads = Annotated[
    str | None,
    typer.Option("--threads", metavar="1,2", help="Intra-op threads; several make a sweep."),
]
Batches = Annotated[
    str | None,
    typer.Option("--batch", metavar="1,8", help="Samples at once; several make a sweep."),
]


@app.command()
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
    with _progress() as progress:
        result = api.compress(
            model,
            plan=_plan(layer, plan),
            data=data,
            calibration=calibrate,
            calibration_limit=calibrate_limit,
            asymmetric=asymmetric,
            preprocess=preprocess,
            limit=limit,
            input_shapes=_shapes(input_shape),
            tolerance=_tolerance(min_sqnr, max_drop, min_top1),
            seed=seed,
            progress=progress,
        )
    result.save(output, force=force)
    if save_plan is not None:
        api.write_text(save_plan, json.dumps(result.plan.to_dict(), indent=2) + "\n")
    if as_json:
        _print_json({**result.report.to_dict(), "output": str(output)})
    else:
        tables.print_compress(result.report)
        print(f"wrote {output}")
    report = result.report.verification
    return 0 if report is None or report.passed else 1


@app.command()
def inspect(model: Model, input_shape: InputShapes = None, as_json: Json = False) -> None:
    """List the layers, what they cost, and which schemes apply to each."""
    from onnx_lowrank import api
    from onnx_lowrank.report import tables

    rows = api.inspect(model, input_shapes=_shapes(input_shape))
    if as_json:
        _print_json({"version": 1, "layers": [row.to_dict() for row in rows]})
    else:
        tables.print_layers(rows)


@app.command()
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

    report = api.cost(model, plan=_plan(layer, plan), input_shapes=_shapes(input_shape))
    if as_json:
        _print_json(report.to_dict())
    else:
        tables.print_cost(report)


@app.command()
def verify(
    original: Annotated[Path, typer.Argument(help="The original model.", show_default=False)],
    compressed: Annotated[Path, typer.Argument(help="The rewritten model.", show_default=False)],
    data: Data = None,
    preprocess: Preset = None,
    limit: Limit = None,
    input_shape: InputShapes = None,
    min_sqnr: MinSqnr = None,
    max_drop: MaxDrop = None,
    min_top1: MinTop1 = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> int:
    """Run both models on the same inputs and compare every output; exit 1 if out of tolerance."""
    from onnx_lowrank import api
    from onnx_lowrank.report import tables

    with _progress() as progress:
        progress("verifying", 0, 1)
        report = api.verify(
            original,
            compressed,
            data=data,
            preprocess=preprocess,
            limit=limit,
            input_shapes=_shapes(input_shape),
            tolerance=_tolerance(min_sqnr, max_drop, min_top1),
            seed=seed,
        )
    if as_json:
        _print_json(report.to_dict())
    else:
        tables.print_verification(report)
    return 0 if report.passed else 1


@app.command()
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
) -> None:
    """Time models against each other: latency, throughput, memory, and the ratio's interval."""
    from onnx_lowrank import benchmarking
    from onnx_lowrank.report import bench_tables

    with _progress() as progress:
        report = benchmarking.benchmark(
            models,
            provider=cast("Any", provider),
            threads=_counts("--threads", threads),
            batches=_counts("--batch", batch),
            repeats=repeats,
            seconds=seconds,
            int8=int8,
            openvino=openvino,
            data=data,
            preprocess=preprocess,
            input_shapes=_shapes(input_shape),
            seed=seed,
            progress=progress,
        )
    if as_json:
        _print_json(report.to_dict())
    else:
        bench_tables.print_benchmark(report)


@app.command()
def profile(
    model: Model,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", metavar="OTHER", help="Show the rewritten model beside it."),
    ] = None,
    provider: Provider = "cpu",
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Intra-op threads.")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Samples at once.")] = None,
    runs: Annotated[int, typer.Option("--runs", help="Runs to average over.")] = 8,
    data: Data = None,
    preprocess: Preset = None,
    input_shape: InputShapes = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure the forward time of every layer: mean, deviation, share, and speed."""
    from onnx_lowrank import profiling
    from onnx_lowrank.report import profile_tables

    with _progress() as progress:
        report = profiling.profile(
            model,
            compare=compare,
            provider=cast("Any", provider),
            threads=threads,
            batch=batch,
            runs=runs,
            data=data,
            preprocess=preprocess,
            input_shapes=_shapes(input_shape),
            seed=seed,
            progress=progress,
        )
    if as_json:
        _print_json(report.to_dict())
    else:
        profile_tables.print_profile(report)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show versions, providers and instruction sets, what is missing and how to get it."""
    from onnx_lowrank import api
    from onnx_lowrank.report import tables

    diagnosis = api.diagnose()
    if as_json:
        _print_json(diagnosis.to_dict())
    else:
        tables.print_diagnosis(diagnosis)


def main() -> NoReturn:
    """Run the command line; every error is one line on stderr."""
    try:
        code = app(standalone_mode=False)
    except OnnxLowRankError as error:
        _fail(str(error))
    except _USAGE_ERROR as error:
        _fail(f"{error.format_message().rstrip('.')}; see 'onnx-lowrank --help'")
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; nothing was written", code=130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, *, code: int = 2) -> NoReturn:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


def _plan(layers: list[str] | None, plan: Path | None) -> list[str] | Path | None:
    if layers and plan:
        raise PlanError("give the plan either by --layer or by --plan, not by both")
    return plan or layers or None


def _shapes(texts: list[str] | None) -> dict[str, tuple[int, ...]] | None:
    shapes = {}
    for text in texts or ():
        name, _, sizes = text.rpartition("=")
        try:
            shape = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            shape = ()
        if not name or not shape or min(shape) < 1:
            raise DataError(
                f"cannot read the input shape '{text}'; "
                "write NAME=SIZES, such as 'input=1,3,224,224'"
            )
        shapes[name] = shape
    return shapes or None


def _tolerance(min_sqnr: float | None, max_drop: float | None, min_top1: float | None) -> Tolerance:
    from onnx_lowrank import api

    given = {"min_sqnr_db": min_sqnr, "max_drop": max_drop, "min_top1": min_top1}
    return api.Tolerance(**{name: value for name, value in given.items() if value is not None})


def _counts(option: str, text: str | None) -> tuple[int | None, ...]:
    """Read ``"1,2,4"``; nothing given is one None."""
    if text is None:
        return (None,)
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise DataError(f"cannot read {option} '{text}'; write numbers of 1 or more, such as 1,2")
    return tuple(map(int, parts))


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))


@contextmanager
def _progress() -> Iterator[Progress]:
    """Give a callable that shows what is being done; silent where stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step, done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading the model", total=None)

        def show(step: str, done: int, total: int) -> None:
            bar.update(task, description=step, completed=done, total=total)

        yield show
