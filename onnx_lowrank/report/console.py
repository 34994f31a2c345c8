"""What all tables on a terminal share: width, form of numbers, names of layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 200


def open_console() -> Console:
    """Return a console on stdout; a pipe, which has no width of its own, is as wide as it takes."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)


def number(value: float) -> str:
    """Format a positive number with three digits or all digits before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def new_table(*columns: str) -> Table:
    """Return a table without lines: text on the left, numbers on the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        text = index == 0 or column.startswith(("scheme", "weight"))
        table.add_column(column, justify="left" if text else "right", overflow="fold")
    return table


def print_table(table: Table) -> None:
    """Print a table; in a pipe at its full width."""
    open_console().print(table)


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
        print(f"in {scope}")


def print_kept(kept: Iterable[tuple[str, str]], scope: str) -> None:
    """Print why layers are kept; those with one reason share a line."""
    print_groups(((name, f"kept: {reason}") for name, reason in kept), scope)


def print_groups(facts: Iterable[tuple[str, str]], scope: str) -> None:
    """Print what is said of layers; those of which the same is said share a line."""
    by_fact: dict[str, list[str]] = {}
    for name, fact in facts:
        by_fact.setdefault(fact, []).append(name.removeprefix(scope))
    for fact, names in by_fact.items():
        print(f"{', '.join(names)}: {fact}")
