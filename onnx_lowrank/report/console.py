"""The one gate to the terminal: all that commands print goes through `say` or `print_table`.

What is printed is text, never markup of the terminal library; what a terminal would obey or hide
is escaped. The module also has what tables share: width, form of numbers, names of layers.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from onnx_lowrank.text import SENTENCE_LENGTH, printable, printable_name

PIPE_WIDTH = 200
_TEXTS = {"scheme", "weight", "op"}


def open_console(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr that prints text as it is, without markup or emoji.

    A pipe, which has no width of its own, is as wide as it takes. What the stream's encoding lacks
    is escaped.
    """
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    console = _console(stream)
    return console if console.is_terminal else _console(stream, width=PIPE_WIDTH)


def _console(stream: IO[str], **options: Any) -> Console:
    return Console(file=stream, markup=False, emoji=False, highlight=False, **options)


def say(
    sentence: str,
    *,
    style: str = "",
    console: Console | None = None,
    wrap: bool = False,
    limit: int | None = SENTENCE_LENGTH,
) -> None:
    """Print one line.

    Parameters
    ----------
    sentence : str
        What is printed, made visible by `printable`.
    style : str
        How, on a terminal.
    console : Console, optional
        Where; stdout by default.
    wrap : bool
        Whether the line is broken at the width of the console. A path or a command is copied from
        the terminal, which takes a line without breaks.
    limit : int, optional
        Of a longer line only the ends are printed; None for one that joins shortened names.
    """
    text = Text(printable(sentence, limit), style)
    (console or open_console()).print(text, soft_wrap=not wrap)


def print_json(document: Any) -> None:
    """Print a document as JSON, exact and in ASCII; NaN and infinity are not JSON."""
    print(json.dumps(document, indent=2, allow_nan=False))


class TextTable(Table):
    """A table whose cells are texts: no markup, no control characters, none too long."""

    def add_row(
        self,
        *renderables: RenderableType | None,
        style: Any = None,
        end_section: bool = False,
    ) -> None:
        """Add a row of texts; None is an empty cell."""
        cells = (Text("" if each is None else printable_name(each)) for each in renderables)
        super().add_row(*cells, style=style, end_section=end_section)


def new_table(*columns: str, title: str | None = None) -> TextTable:
    """Return a table without lines: text on the left, numbers on the right."""
    shown = None if title is None else Text(printable_name(title))
    table = TextTable(
        title=shown, title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for index, column in enumerate(columns):
        text = index == 0 or column in _TEXTS
        # A header may be of two lines.
        header = Text("\n".join(map(printable_name, column.split("\n"))))
        table.add_column(header, justify="left" if text else "right", overflow="fold")
    return table


def print_table(table: TextTable, console: Console | None = None) -> None:
    """Print a table; in a pipe at its full width."""
    (console or open_console()).print(table)


def number(value: float) -> str:
    """Format a positive number with three digits or all digits before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def short_count(value: int | None) -> str:
    """Format a count with three digits and a unit."""
    if value is None:
        return "?"
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return str(value)


def short_bytes(value: int | None) -> str:
    """Format a number of bytes with three digits and a unit, in powers of 1000."""
    if value is None:
        return "?"
    count = short_count(value)
    return f"{count}B" if " " in count else f"{count} B"


def scope_of(names: Sequence[str]) -> str:
    """Return the scope that all names share, with its last slash; it is printed once."""
    first, *rest = names or [""]
    scope = first
    while scope and not all(name.startswith(scope) for name in rest):
        scope = scope[:-1]
    return scope[: scope.rfind("/") + 1]


def print_scope(scope: str) -> None:
    """Print the scope that names in a table leave out."""
    if scope:
        say(f"in {printable_name(scope)}")


def print_kept(kept: Iterable[tuple[str, str]], scope: str) -> None:
    """Print why layers are kept; those with one reason share a line."""
    print_groups(((name, f"kept: {reason}") for name, reason in kept), scope)


def print_groups(facts: Iterable[tuple[str, str]], scope: str) -> None:
    """Print what is said of layers; those of which the same is said share a line."""
    by_fact: dict[str, list[str]] = {}
    for name, fact in facts:
        by_fact.setdefault(fact, []).append(printable_name(name.removeprefix(scope)))
    for fact, names in by_fact.items():
        say(f"{', '.join(names)}: {printable(fact)}", limit=None)
