"""What commands print: tables or JSON on stdout, progress on stderr."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO, TypeVar

from onnx_lowrank.text import printable

if TYPE_CHECKING:
    from onnx_lowrank.types import Progress

P = ParamSpec("P")
T = TypeVar("T")

# Seconds of steps that the time left is told from: a step, such as a fit, may take minutes.
_SPEED_OVER = 3600.0
_STEP_LENGTH = 100  # characters of what is being done


def print_result(
    document: Callable[[], Any], tables: Callable[[], None], *, as_json: bool, quiet: bool
) -> None:
    """Print a result as JSON where that is asked for; otherwise as tables, or not at all."""
    if as_json:
        # NaN and infinity are not JSON.
        from onnx_lowrank.report.console import print_json

        print_json(document())
    elif not quiet:
        tables()


@contextmanager
def show_progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Give a callable that shows what is being done, for how long, and the time that is left.

    It shows nothing where stderr is not a terminal, and where the user wants it `quiet`.
    """
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from onnx_lowrank.report.console import open_console
    from onnx_lowrank.types import silent

    console = open_console(stderr=True)
    if quiet or not console.is_terminal:
        yield silent
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("·"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(
        *columns, console=console, transient=True, speed_estimate_period=_SPEED_OVER
    ) as bar:
        task = bar.add_task("reading the model", total=None)
        reached = 0

        def show(step: str, done: int, total: int) -> None:
            nonlocal reached
            if done < reached:  # the next stage: the speed of the last says nothing of it
                bar.update(task, total=0)
            reached = done
            bar.update(task, description=printable(step, _STEP_LENGTH), completed=done, total=total)

        yield show


def noted(command: Callable[P, T]) -> Callable[P, T]:
    """Return the command with what the library warns of, such as repairs, as notes on stderr."""

    @wraps(command)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        with _notes(quiet=bool(options.get("quiet"))):
            return command(*arguments, **options)

    return run


@contextmanager
def _notes(*, quiet: bool) -> Iterator[None]:
    """Print what Python warns of as notes on stderr, each once; nothing where that is wanted."""
    from onnx_lowrank.errors import CacheWarning, RepairWarning
    from onnx_lowrank.report.console import open_console, say

    said = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not quiet and str(message) not in said:
            said.add(str(message))
            say(f"note: {message}", console=open_console(stderr=True))

    with warnings.catch_warnings():
        for kind in (CacheWarning, RepairWarning):
            warnings.simplefilter("always", kind)
        warnings.showwarning = show
        yield
