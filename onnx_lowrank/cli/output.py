"""What commands print: JSON on stdout, progress on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx_lowrank.api import Progress


def print_json(value: Any) -> None:
    """Print JSON-ready data; NaN and infinity are not JSON."""
    print(json.dumps(value, indent=2, allow_nan=False))


@contextmanager
def show_progress() -> Iterator[Progress]:
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
