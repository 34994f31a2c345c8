"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnx_lowrank.errors import DataError, PlanError

if TYPE_CHECKING:
    from onnx_lowrank.api import Tolerance
    from onnx_lowrank.planning.latency import SavedLatencies

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
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Use this many samples.")]
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
Seed = Annotated[int, typer.Option("--seed", min=0, help="Fixes every random choice.")]
MinSqnr = Annotated[
    float | None,
    typer.Option("--min-sqnr", help="Least signal-to-noise ratio of every output, in dB."),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        help="Most points of accuracy to lose, where labels are given; of --score, in its units.",
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
        if not name or not shape or min(shape) < 1:
            raise DataError(
                f"cannot read the input shape '{text}'; "
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
) -> Tolerance:
    """Return the tolerance of the bounds given; the defaults stand for the others."""
    from onnx_lowrank import api

    drop = "max_drop" if score is None else "max_score_drop"
    given = {"min_sqnr_db": min_sqnr, drop: max_drop, "min_top1": min_top1}
    return api.Tolerance(**{name: value for name, value in given.items() if value is not None})


def read_counts(option: str, text: str | None) -> tuple[int | None, ...]:
    """Read ``"1,2,4"``; nothing given is one None."""
    if text is None:
        return (None,)
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise DataError(f"cannot read {option} '{text}'; write numbers of 1 or more, such as 1,2")
    return tuple(map(int, parts))


def read_latency(path: Path) -> SavedLatencies:
    """Read a table of latencies; raise PlanError where it is none."""
    from onnx_lowrank.planning.latency import SavedLatencies

    try:
        return SavedLatencies.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise PlanError(f"cannot read the latencies {path}: {error}; give a JSON file") from None
