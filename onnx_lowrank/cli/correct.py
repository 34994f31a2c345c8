"""The command `correct`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnx_lowrank.cli.gate import Writes
from onnx_lowrank.cli.options import Json, Limit, OrtEngine, Preset, Quiet, Seed
from onnx_lowrank.cli.output import print_result, show_progress

if TYPE_CHECKING:
    from onnx_lowrank.training.correct import Correction


def correct(
    original: Annotated[Path, typer.Argument(help="The original model.", show_default=False)],
    compressed: Annotated[
        Path, typer.Argument(help="A model that compress made of it.", show_default=False)
    ],
    data: Annotated[
        str, typer.Option("--data", metavar="SOURCE", help="Samples, as of compress; no labels.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Where to write the new model."),
        Writes(over="compressed"),
    ],
    preprocess: Preset = None,
    limit: Limit = None,
    engine: OrtEngine = "cpu",
    seed: Seed = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Allow the output to overwrite the compressed model.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Give each channel of a compressed model the original's mean and deviation; no training."""
    from onnx_lowrank.documents import measured
    from onnx_lowrank.pipelines.correct import correct as run

    with show_progress(quiet=quiet) as progress:
        result = run(
            original,
            compressed,
            data=data,
            preprocess=preprocess,
            limit=limit,
            engine=engine,
            seed=seed,
            progress=progress,
        )
    result.save(output, force=force)
    found = {"corrections": [asdict(each) for each in result.corrections], "output": str(output)}
    print_result(
        lambda: measured("correct", found, provider=engine),
        lambda: _print_table(result.corrections, output),
        as_json=as_json,
        quiet=quiet,
    )
    return 0


def _print_table(corrections: Sequence[Correction], output: Path) -> None:
    from onnx_lowrank.report.console import new_table, number, print_table, say

    table = new_table("tensor", "shift of means", "log of factors", "")
    for each in corrections:
        cells = ("", "", each.reason)
        if each.reason is None:
            cells = (number(each.shift), number(each.scale), "")
        table.add_row(each.tensor, *cells)
    print_table(table)
    say(f"wrote {output}")
