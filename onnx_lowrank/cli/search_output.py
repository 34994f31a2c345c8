"""What the command `compress` writes and prints of a search within a budget."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_lowrank.cli.output import print_result

if TYPE_CHECKING:
    from onnx_lowrank.pipelines.budget_result import BudgetResult

NOTHING = "nothing was written; --keep-anyway writes it"


def write_search(
    found: BudgetResult,
    output: Path,
    *,
    where: Mapping[str, Any],
    save_plan: Path | None,
    force: bool,
    keep_anyway: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Write the model, where it passed, and its plan; print what was found; return the exit code.

    Parameters
    ----------
    found : BudgetResult
        What the search found.
    output : Path
        Where the model goes.
    where : mapping
        The engine and its threads, for the document.
    save_plan : Path, optional
        Where the plan goes.
    force, keep_anyway, as_json, quiet : bool
        As of the command.
    """
    from onnx_lowrank.documents import measured
    from onnx_lowrank.files import write_text

    written = found.passed or keep_anyway
    if written:
        found.compressed.save(output, force=force)
    if save_plan is not None:
        write_text(save_plan, json.dumps(found.compressed.plan.to_dict(), indent=2) + "\n")
    files = {
        "output": str(output) if written else None,
        "check_command": found.check_command(output) if written else None,
    }
    print_result(
        lambda: measured("search", {**found.to_dict(), **files}, **where),
        lambda: _print(found, output if written else None),
        as_json=as_json,
        quiet=quiet,
    )
    return 0 if found.passed else 1


def _print(found: BudgetResult, output: Path | None) -> None:
    from onnx_lowrank.report import search_tables
    from onnx_lowrank.report.console import say

    search_tables.print_search(found)
    say(f"wrote {output}" if output else NOTHING)
    if output and (check := found.check_command(output)):
        say(f"check it there: {check}")
