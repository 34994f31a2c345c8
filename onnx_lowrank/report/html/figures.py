"""The figures of a report, drawn with matplotlib, and as text for a page in light and dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.report.html.content import Drawing
from onnx_lowrank.text import printable_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# On the page each colour becomes a variable of the style sheet, which has a dark value too.
INK, GRID = "#1b1f24", "#d3d8de"
SERIES = ("#0b63b5", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#be185d")
_VARIABLES = {INK: "ink", GRID: "grid", **{c: f"series-{i}" for i, c in enumerate(SERIES)}}
_MARKERS = "osD^vP"
_SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "onnx_lowrank",
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of layers are no formulas
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}
_WIDTH = 4.6  # inches; a phone shows it nearly at its size
_MAX_NAME = 26


@contextmanager
def any_script() -> Iterator[None]:
    """Draw names in any script: a character that the font lacks is a box, and no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def to_svg(drawing: Drawing) -> str:
    """Return a figure as SVG for a page: scalable, without background, colours as variables.

    Its identifiers carry the drawing's name, so that they are unique on the page.
    """
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context(_SETTINGS), any_script():  # type: ignore[arg-type]
        drawing.draw().savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*pt"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*pt"', r"\1", svg, count=1)

    def for_page(found: re.Match[str]) -> str:
        tag = re.sub(r'\bid="', f'id="{drawing.name}-', found[0])
        tag = re.sub(r'(url\(#|href="#)', rf"\1{drawing.name}-", tag)
        for colour, name in _VARIABLES.items():
            tag = tag.replace(colour, f"var(--{name})")
        return tag

    return re.sub(r"<[^>]*>", for_page, svg)  # what stands between tags are names


def save(drawing: Drawing, folder: Path) -> None:
    """Write a figure as PNG, at 200 dots per inch, and as SVG; the same figure, the same files."""
    from matplotlib import rc_context

    with rc_context(_SETTINGS), any_script():  # type: ignore[arg-type]
        figure = drawing.draw()
        figure.savefig(folder / f"{drawing.name}.svg", metadata={"Date": None})
        figure.savefig(folder / f"{drawing.name}.png", dpi=200, metadata={"Software": None})


def short(name: str) -> str:
    """Return a visible name that fits beside an axis: its ends, where it is long."""
    name = printable_name(name)
    half = (_MAX_NAME - 1) // 2
    return name if len(name) <= _MAX_NAME else f"{name[:half]}…{name[-half:]}"


def draw_bars(
    names: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], label: str
) -> Figure:
    """Draw bars of each layer, from top to bottom, one for each of `series`."""
    figure, axes = _new(0.75 + len(names) * (0.1 + 0.13 * len(series)))
    places = np.arange(len(names))
    height = 0.8 / len(series)
    for index, (title, values) in enumerate(series):
        offset = (index - (len(series) - 1) / 2) * height
        axes.barh(places + offset, values, height * 0.92, color=SERIES[index], label=title)
    axes.set_yticks(places, [short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label)
    axes.grid(axis="x")
    if len(series) > 1:
        figure.legend(loc="outside upper left", ncols=len(series))
    return figure


def draw_frontier(
    points: Sequence[tuple[float, float, bool]],
    chosen: tuple[float, float] | None,
    loss: str,
    bound: float | None = None,
) -> Figure:
    """Draw what models lose against their latency; those within the bounds are filled."""
    figure, axes = _new(3.4)
    for passed, title in ((True, "within the bounds"), (False, "not within the bounds")):
        places = [(x, y) for x, y, p in points if p == passed]
        if places:
            x, y = zip(*places, strict=True)
            fill = SERIES[0] if passed else "none"
            axes.scatter(x, y, 28, facecolors=fill, edgecolors=SERIES[0], label=title)
    if chosen is not None:
        label = "chosen, as a whole"
        axes.scatter(*chosen, 110, marker="*", color=SERIES[1], label=label, zorder=3)
    if bound is not None:
        axes.axhline(bound, color=SERIES[3], linewidth=1, linestyle="--")
    axes.set_xlabel("latency over the original's (less is faster)")
    axes.set_ylabel(loss)
    axes.grid()
    figure.legend(loc="outside upper left", ncols=2, fontsize=8)
    return figure


def draw_spectrum(modes: Sequence[tuple[str, NDArray[np.float64]]]) -> Figure:
    """Draw the energy that is lost by a rank, against the rank's share, one line a mode."""
    figure, axes = _new(2.5, width=3.4)
    for index, (name, values) in enumerate(modes):
        energy = np.concatenate([[0.0], np.cumsum(values**2)])
        lost = 1 - energy / (energy[-1] or 1.0)
        share = np.linspace(0, 1, len(lost))
        # No more points than can be seen.
        kept = np.unique(np.linspace(0, len(lost) - 2, 40).astype(int))
        axes.plot(
            100 * share[kept],
            100 * np.maximum(lost[kept], 1e-6),
            color=SERIES[index],
            marker=_MARKERS[index],
            markevery=max(1, len(kept) // 8),
            markersize=3,
            linewidth=1.2,
            label=short(name),
        )
    axes.set_ylim(0.05, 130)
    _set_log(axes)
    axes.set_xlim(0, 100)
    axes.set_xlabel("rank, % of the full one")
    axes.set_ylabel("energy lost, %")
    axes.grid()
    figure.legend(
        loc="outside upper left", ncols=4, fontsize=7.5, columnspacing=0.8, handlelength=1.4
    )
    return figure


def draw_intervals(names: Sequence[str], intervals: Sequence[tuple[float, float, float]]) -> Figure:
    """Draw ratios of latencies with their intervals, from top to bottom."""
    figure, axes = _new(0.8 + 0.3 * len(names))
    places = np.arange(len(names))
    middle, low, high = (np.asarray(each) for each in zip(*intervals, strict=True))
    axes.errorbar(
        middle, places, xerr=[middle - low, high - middle], fmt="o", color=SERIES[0], capsize=3
    )
    axes.axvline(1, color=SERIES[1], linestyle="--", linewidth=1)
    axes.set_yticks(places, [short(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("latency over the first model's (less is faster)")
    axes.grid(axis="x")
    return figure


def draw_sweep(lines: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> Figure:
    """Draw errors against the reduction of multiply-adds, one line for each scheme and metric."""
    rows = -(-len(lines) // 2)
    figure, axes = _new(2.6 + 0.19 * rows)
    for index, (name, points) in enumerate(lines):
        x, y = zip(*sorted(points), strict=True)
        axes.plot(
            x,
            y,
            color=SERIES[index % len(SERIES)],
            marker=_MARKERS[(index // len(SERIES) + index) % len(_MARKERS)],
            linestyle=("-", "--", ":")[index // len(SERIES) % 3],
            markersize=4,
            label=short(name),
        )
    _set_log(axes)
    axes.set_xlabel("times fewer multiply-adds")
    axes.set_ylabel("error of the output, %")
    axes.grid()
    figure.legend(loc="outside upper left", ncols=2, fontsize=7.5)
    return figure


def _set_log(axes: Axes) -> None:
    """Scale the upright axis by logarithm; its labels are plain numbers, not formulas."""
    from matplotlib.ticker import MaxNLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 10 * low:  # not one power of ten, or hardly, would be marked
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter("")


def _new(height: float, *, width: float = _WIDTH) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
