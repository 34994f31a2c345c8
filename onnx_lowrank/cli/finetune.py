"""The command `finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnx_lowrank.bounds import MOST_BATCH, MOST_REPEATS
from onnx_lowrank.cli.gate import Writes
from onnx_lowrank.cli.options import (
    Json,
    Preset,
    Quiet,
    Rate,
    Seed,
    TrainLimit,
    count,
    read_counts,
)
from onnx_lowrank.cli.output import print_result, show_progress
from onnx_lowrank.training.settings import Device, LossName, Optimiser, Part

if TYPE_CHECKING:
    from onnx_lowrank.training.run import FinetuneReport


def finetune(
    original: Annotated[Path, typer.Argument(help="The original model.", show_default=False)],
    compressed: Annotated[
        Path, typer.Argument(help="A model that compress made of it.", show_default=False)
    ],
    data: Annotated[
        str, typer.Option("--data", metavar="SOURCE", help="Samples to train on, as of compress.")
    ],
    val: Annotated[
        str, typer.Option("--val", metavar="SOURCE", help="Other samples, to choose the best by.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Where to write the new model."),
        Writes(over="compressed"),
    ],
    train: Annotated[
        Part,
        typer.Option(
            "--train",
            metavar="factors|above|both",
            help="Train what the compression made, the layers above it, or both.",
        ),
    ] = "factors",
    loss: Annotated[
        LossName | None,
        typer.Option(
            "--loss",
            metavar="labels|distill|both",
            help="Minimise the error of labels, the distance from the original, or both.",
        ),
    ] = None,
    optimiser: Annotated[
        Optimiser, typer.Option("--optimiser", metavar="adamw|sgd", help="SGD has momentum 0.9.")
    ] = "adamw",
    rate: Rate = None,
    epochs: Annotated[
        int, count("--epochs", help="Most passes over the data.", most=MOST_REPEATS)
    ] = 3,
    batch: Annotated[
        str,
        typer.Option(
            "--batch", metavar="N[,N...]", help="Samples of a step; sizes share the epochs evenly."
        ),
    ] = "64",
    patience: Annotated[
        int, count("--patience", help="Epochs without gain after which to stop.")
    ] = 2,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="FILE", help="Keep the run here, and go on from it."),
        Writes(),
    ] = None,
    preprocess: Preset = None,
    limit: TrainLimit = None,
    recompute: Annotated[
        bool,
        typer.Option("--recompute", help="Keep few activations: less memory, more time."),
    ] = False,
    device: Annotated[
        Device, typer.Option("--device", metavar="cpu|cuda", help="Where torch computes.")
    ] = "cpu",
    seed: Seed = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Allow the output to overwrite the compressed model.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Train a compressed model to give back what it lost; only the values of weights change."""
    from onnx_lowrank.documents import measured
    from onnx_lowrank.pipelines.finetune import finetune as run

    counts = read_counts("--batch", batch, most=MOST_BATCH)
    sizes = tuple(each for each in counts if each is not None)

    with show_progress(quiet=quiet) as progress:
        result = run(
            original,
            compressed,
            data=data,
            val=val,
            preprocess=preprocess,
            limit=limit,
            part=train,
            loss=loss,
            optimiser=optimiser,
            rate=rate,
            epochs=epochs,
            batch=sizes,
            patience=patience,
            seed=seed,
            recompute=recompute,
            checkpoint=checkpoint,
            device=device,
            progress=progress,
        )
    result.save(output, force=force)
    print_result(
        lambda: measured(
            "finetune", {**result.report.to_dict(), "output": str(output)}, provider=device
        ),
        lambda: _print_table(result.report, output),
        as_json=as_json,
        quiet=quiet,
    )
    return 0


def _print_table(report: FinetuneReport, output: Path) -> None:
    from onnx_lowrank.report.console import new_table, print_table, say

    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.2%}"

    table = new_table("epoch", "validation loss", "accuracy", "as the original", "")
    for epoch, score in enumerate(report.history):
        best = "best" if score is report.best else ""
        row = (f"{score.loss:.4g}", share(score.accuracy), share(score.agreement), best)
        table.add_row(str(epoch), *row)
    print_table(table)
    say(
        f"trained {len(report.trained)} weights, loss '{report.loss}', {report.steps} steps in "
        f"{report.seconds:.0f} s: {report.stopped}"
    )
    say(f"wrote {output}")
