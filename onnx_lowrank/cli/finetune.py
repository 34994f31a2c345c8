"""The command `finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from onnx_lowrank.cli.options import Json, Preset, Quiet, Seed
from onnx_lowrank.cli.output import print_result, show_progress
from onnx_lowrank.errors import DataError

if TYPE_CHECKING:
    from onnx_lowrank.finetune.run import FinetuneReport


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
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the new model.")],
    train: Annotated[
        str,
        typer.Option(
            "--train",
            metavar="factors|above|both",
            help="Train what the compression made, the layers above it, or both.",
        ),
    ] = "factors",
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            metavar="labels|distill|both",
            help="Minimise the error of labels, the distance from the original, or both.",
        ),
    ] = None,
    optimiser: Annotated[
        str, typer.Option("--optimiser", metavar="adamw|sgd", help="SGD has momentum 0.9.")
    ] = "adamw",
    rate: Annotated[float | None, typer.Option("--rate", help="First learning rate.")] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Most passes over the data.")] = 3,
    batch: Annotated[
        str,
        typer.Option(
            "--batch", metavar="N[,N...]", help="Samples of a step; sizes share the epochs evenly."
        ),
    ] = "64",
    patience: Annotated[
        int, typer.Option("--patience", min=1, help="Epochs without gain after which to stop.")
    ] = 2,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="FILE", help="Keep the run here, and go on from it."),
    ] = None,
    preprocess: Preset = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Train on this many samples.")
    ] = None,
    recompute: Annotated[
        bool,
        typer.Option("--recompute", help="Keep few activations: less memory, more time."),
    ] = False,
    device: Annotated[
        str, typer.Option("--device", metavar="cpu|cuda", help="Where torch computes.")
    ] = "cpu",
    seed: Seed = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Allow the output to overwrite the compressed model.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Train a compressed model to give back what it lost; only the values of weights change."""
    from onnx_lowrank.api import check_output
    from onnx_lowrank.documents import measured
    from onnx_lowrank.finetune import require_torch

    check_output(output, source=compressed, force=force)  # before the work, not after it
    require_torch()
    from onnx_lowrank.finetune.run import finetune as run

    with show_progress(quiet=quiet) as progress:
        result = run(
            original,
            compressed,
            data=data,
            val=val,
            preprocess=preprocess,
            limit=limit,
            part=cast("Any", train),  # choices are checked there
            loss=cast("Any", loss),
            optimiser=cast("Any", optimiser),
            rate=rate,
            epochs=epochs,
            batch=_sizes(batch),
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


def _sizes(text: str) -> tuple[int, ...]:
    """Read `--batch`."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise DataError(
            f"cannot read --batch '{text}'; write a number of 1 or more, or several with commas"
        ) from None


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
