"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnx_lowrank.bounds import MOST_COUNT, MOST_SEED, MOST_WORKERS, out_of_range
from onnx_lowrank.errors import DataError, PlanError

if TYPE_CHECKING:
    from onnx_lowrank.measure.verification import Tolerance
    from onnx_lowrank.planning.latency import SavedLatencies


def within(remedy: str, **bounds: float) -> Callable[[float | None], float | None]:
    """Return a check of an option: a finite number in a range, as of `out_of_range`.

    Typer's own bounds let NaN pass.
    """

    def check(value: float | None) -> float | None:
        if value is not None and out_of_range(value, **bounds):
            raise typer.BadParameter(f"{value} is not a finite number in its range; {remedy}")
        return value

    return check


def count(*names: str, help: str, most: int = MOST_COUNT) -> Any:
    """Return an option that takes a whole number from 1 to `most`."""
    return typer.Option(*names, min=1, max=most, help=help)


def workers(name: str, help: str) -> Any:
    """Return an option that takes a number of threads or processes."""
    return count(name, help=help, most=MOST_WORKERS)


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Print nothing but errors, and JSON where asked for.")
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="NAME=SCHEME",
        help="Replace a layer (name or glob) by a scheme, e.g. 'conv1=mono:C=6', or leave it as it "
        "is: 'conv1=keep'; repeat as needed.",
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
Limit = Annotated[int | None, count("--limit", help="Use this many samples.")]
TrainLimit = Annotated[int | None, count("--limit", help="Train on this many samples.")]
CalibrateLimit = Annotated[
    int | None, count("--calibrate-limit", help="Use this many samples of --calibrate.")
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="SOURCE",
        help="A text file of class names in the model's order, an array of the .npz, or 'none'.",
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at an unreadable image instead of skipping it.")
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=MOST_SEED, help="Fixes every random choice.")
]
# Ranges of bounds are those of Tolerance and Budget, which they become before any work.
MinSqnr = Annotated[
    float | None,
    typer.Option(
        "--min-sqnr",
        callback=within("give dB, such as 25"),
        help="Least signal-to-noise ratio of every output, in dB.",
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        callback=within("give 0 or more", least=0),
        help="Most points of accuracy to lose, where labels are given; of --score, in its units.",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--rate",
        callback=within("give a rate above 0, such as 0.0003", above=0),
        help="First learning rate.",
    ),
]
ScoreOption = Annotated[
    str | None,
    typer.Option(
        "--score",
        metavar="MODULE:CALLABLE",
        help="A figure of merit of your own, called as f(outputs, reference, labels): the higher, "
        "the better.",
    ),
]
MinTop1 = Annotated[
    float | None,
    typer.Option(
        "--min-top1",
        callback=within(
            "give a share of the samples from 0 to 1, such as 0.99 for 99 %", least=0, most=1
        ),
        help="Least share of samples with the same top-1 class, 0 to 1.",
    ),
]

Engine = Annotated[
    str,
    typer.Option(
        *("--engine", "--provider"),
        metavar="cpu|cuda|openvino",
        help="Where models run: onnxruntime on the CPU or on CUDA, or OpenVINO.",
    ),
]
OrtEngine = Annotated[
    str,
    typer.Option(
        *("--engine", "--provider"), metavar="cpu|cuda", help="Where onnxruntime runs the models."
    ),
]
Threads = Annotated[
    str | None,
    typer.Option("--threads", metavar="1,2", help="Threads of one run; several make a sweep."),
]
Batches = Annotated[
    str | None,
    typer.Option("--batch", metavar="1,8", help="Samples at once; several make a sweep."),
]


def read_plan(layers: list[str] | None, plan: Path | None) -> list[str] | Path | None:
    """Return what names the plan, or None; raise PlanError where two things do."""
    if layers and plan:
        raise PlanError("give the plan either by --layer or by --plan, not by both")
    return plan or layers or None


def read_keep(layers: list[str] | None) -> list[str]:
    """Return names and globs of ``NAME=keep`` texts; none where a text names a scheme."""
    from onnx_lowrank.planning.plan import Rule

    rules = [Rule.parse(text) for text in layers or ()]
    return [] if any(rule.scheme for rule in rules) else [rule.pattern for rule in rules]


def read_shapes(texts: list[str] | None) -> dict[str, tuple[int, ...]] | None:
    """Read ``"NAME=1,3,224,224"`` texts; raise DataError where one has another form."""
    shapes = {}
    for text in texts or ():
        name, _, sizes = text.rpartition("=")
        try:
            shape = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            shape = ()
        if not name or not shape or min(shape) < 1 or max(shape) > MOST_COUNT:
            raise DataError(
                f"cannot read the input shape '{text[:80]}'; "
                "write NAME=SIZES, such as 'input=1,3,224,224'"
            )
        shapes[name] = shape
    return shapes or None


def read_tolerance(
    min_sqnr: float | None,
    max_drop: float | None,
    min_top1: float | None,
    *,
    score: str | None = None,
) -> Tolerance | None:
    """Return the tolerance of the bounds given; None, which stands for the default, for none."""
    if min_sqnr is max_drop is min_top1 is None:
        return None
    from onnx_lowrank.measure.verification import Tolerance

    return Tolerance(
        min_sqnr_db=min_sqnr,
        max_drop=max_drop if score is None else None,
        min_top1=min_top1,
        max_score_drop=None if score is None else max_drop,
    )


def read_counts(option: str, text: str | None, *, most: int) -> tuple[int | None, ...]:
    """Read ``"1,2,4"``, numbers from 1 to `most`; nothing given is one None."""
    if text is None:
        return (None,)
    parts = [part.strip() for part in text.split(",")]
    digits = len(str(most))
    if not all(p.isdecimal() and len(p) <= digits and 0 < int(p) <= most for p in parts):
        raise DataError(
            f"cannot read {option} '{text[:40]}'; write numbers from 1 to {most}, such as 1,2"
        )
    return tuple(map(int, parts))


def read_latency(path: Path) -> SavedLatencies:
    """Read a table of latencies; raise PlanError where it is none."""
    from onnx_lowrank.planning.latency import SavedLatencies

    return SavedLatencies.read(path)
