"""The command `cascade`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnx_lowrank.bounds import MOST_BATCH, MOST_REPEATS
from onnx_lowrank.cli.gate import Writes
from onnx_lowrank.cli.options import (
    InputShapes,
    Json,
    Layers,
    Model,
    PlanFile,
    Preset,
    Quiet,
    Rate,
    Seed,
    TrainLimit,
    count,
    read_plan,
    read_shapes,
)
from onnx_lowrank.cli.output import print_result, show_progress
from onnx_lowrank.training.settings import LossName, Part

if TYPE_CHECKING:
    from onnx_lowrank.pipelines.cascade import CascadeResult


def cascade(
    model: Model,
    data: Annotated[
        str, typer.Option("--data", metavar="SOURCE", help="Samples to train on, as of compress.")
    ],
    val: Annotated[
        str, typer.Option("--val", metavar="SOURCE", help="Other samples, to choose the best by.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Where to write the new model."),
        Writes(over="model"),
    ],
    layer: Layers = None,
    plan: PlanFile = None,
    train: Annotated[
        Part,
        typer.Option(
            "--train",
            metavar="factors|above|both",
            help="After each layer, train the factors so far, the layers above, or both.",
        ),
    ] = "both",
    loss: Annotated[
        LossName | None,
        typer.Option(
            "--loss",
            metavar="labels|distill|both",
            help="Minimise the error of labels, the distance from the original, or both.",
        ),
    ] = None,
    rate: Rate = None,
    epochs: Annotated[
        int, count("--epochs", help="Passes after each layer.", most=MOST_REPEATS)
    ] = 1,
    batch: Annotated[int, count("--batch", help="Samples of a step.", most=MOST_BATCH)] = 64,
    statistics_limit: Annotated[
        int | None, count("--statistics-limit", help="Use this many samples for the fits.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", metavar="FOLDER", help="Keep the stages here, and go on from them."
        ),
        Writes(("*.npz", "*.json", ".*.tmp")),
    ] = None,
    preprocess: Preset = None,
    limit: TrainLimit = None,
    input_shape: InputShapes = None,
    seed: Seed = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Allow the output to overwrite the input.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Replace layers one after the other, bottom-up, and train the network back after each."""
    from onnx_lowrank.documents import measured
    from onnx_lowrank.pipelines.cascade import cascade as run

    with show_progress(quiet=quiet) as progress:
        result = run(
            model,
            plan=read_plan(layer, plan),
            data=data,
            val=val,
            statistics_limit=statistics_limit,
            preprocess=preprocess,
            input_shapes=read_shapes(input_shape),
            limit=limit,
            part=train,
            loss=loss,
            rate=rate,
            epochs=epochs,
            batch=batch,
            seed=seed,
            checkpoint=checkpoint,
            progress=progress,
        )
    result.save(output, force=force)
    print_result(
        lambda: measured("cascade", {**result.to_dict(), "output": str(output)}, provider="cpu"),
        lambda: _print_table(result, output),
        as_json=as_json,
        quiet=quiet,
    )
    return 0


def _print_table(result: CascadeResult, output: Path) -> None:
    from onnx_lowrank.report.console import new_table, print_table, say, short_bytes, short_count

    table = new_table("layer", "scheme", "validation loss", "trained", "accuracy", "trained")
    for stage in result.stages:
        scores = (stage.fitted, stage.tuned)
        shares = [s.agreement if s.accuracy is None else s.accuracy for s in scores]
        table.add_row(
            stage.layer,
            stage.scheme,
            *(f"{score.loss:.4g}" for score in scores),
            *("" if share is None else f"{share:.2%}" for share in shares),
        )
    print_table(table)
    if result.stages and result.stages[0].fitted.accuracy is None:
        say("accuracy: the share of samples with the original's class, as there are no labels")
    line = f"multiply-adds {short_count(result.macs)} -> {short_count(result.macs_new)}"
    if (sizes := result.file_bytes) is not None:
        line += f", file {short_bytes(sizes.before)} -> {short_bytes(sizes.after)}"
    say(line)
    say(f"wrote {output}")
