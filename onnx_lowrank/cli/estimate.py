"""What the command `compress --estimate` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from onnx_lowrank.cli.output import print_result, show_progress
from onnx_lowrank.errors import PlanError


def write_estimate(
    model: Path,
    data: str | None,
    *,
    unread: Mapping[str, object],
    preprocess: str | None,
    input_shapes: Mapping[str, tuple[int, ...]] | None,
    threads: int | None,
    engine: str,
    lowering: Literal["standard", "portable", "auto"],
    seed: int,
    as_json: bool,
    quiet: bool,
) -> int:
    """Predict and print; return the exit code.

    Parameters
    ----------
    model : Path
        The model.
    data : str or None
        Samples.
    unread : mapping of str to object
        Options that an estimate does not read, by name: none may be given.
    preprocess, input_shapes, threads, engine, lowering, seed, as_json, quiet
        As of the command.
    """
    from onnx_lowrank.documents import measured
    from onnx_lowrank.pipelines.estimate import estimate

    given = [name for name, value in unread.items() if value is not None]
    if given:
        raise PlanError(f"{', '.join(given)}: --estimate does not read this; leave it out")
    if data is None:
        raise PlanError("an estimate needs a few samples; give --data")
    with show_progress(quiet=quiet) as progress:
        found = estimate(
            model,
            data=data,
            preprocess=preprocess,
            input_shapes=input_shapes,
            threads=threads,
            engine=engine,
            lowering=lowering,
            seed=seed,
            progress=progress,
        )

    def tables() -> None:
        from onnx_lowrank.report.estimate_tables import print_estimate

        print_estimate(found)

    print_result(
        lambda: measured("estimate", found.to_dict(), provider=engine, threads=threads),
        tables,
        as_json=as_json,
        quiet=quiet,
    )
    return 0
