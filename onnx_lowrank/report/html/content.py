"""What a report consists of, without its looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Facts:
    """Figures that are read at a glance: what, how much, and what is to be known of it."""

    title: str
    entries: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Table:
    """A table; columns whose number is in `text` are texts, the others numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Notes:
    """Sentences."""

    title: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Attributes
    ----------
    name : str
        Of its file, without ending; unique in the report.
    caption, alt : str
        What is shown, and what is seen.
    draw : callable
        Draws it, with matplotlib.
    small : bool
        Whether several may stand side by side.
    """

    name: str
    caption: str
    alt: str
    draw: Callable[[], Figure]
    small: bool = False


Block = Facts | Table | Notes | Drawing


@dataclass(frozen=True)
class Section:
    """A chapter of the report."""

    id: str
    title: str
    intro: str
    blocks: tuple[Block, ...]
