"""Figures of `sweep`: filters in the space of colours, and what is lost for what is saved."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.pipelines.sweeping import PointResult, SweepReport
from onnx_lowrank.report.html.figures import any_script
from onnx_lowrank.report.sweep_tables import loss_name, network_loss
from onnx_lowrank.text import printable_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float32]
# No date and no random identifiers: the same sweep gives the same files.
_SETTINGS = {"svg.hashsalt": "onnx_lowrank", "svg.fonttype": "none", "font.size": 8.0}
_METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}}
_MARKERS = "osD^v<>P"
_FILTERS = 6  # rows of filters that are shown beside the cloud


def has_matplotlib() -> bool:
    """Whether figures can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw(report: SweepReport, folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Draw the figures of a sweep into its folder, as PNG and SVG.

    ``figure1``, where a layer on colour images was made monochromatic: its filters as points in the
    space of colours, one colour of ink for each output, before and after, and some of the filters
    as images (Denton et al. 2014). ``tradeoff``: error of the layer's output, and the network's
    loss where it is known, against the reduction in multiply-adds.

    Returns
    -------
    tuple of str
        Names of the files written; empty where matplotlib is not installed.
    """
    if not has_matplotlib():
        return ()
    from matplotlib import rc_context

    place = Path(folder)
    written: list[str] = []
    with rc_context(_SETTINGS), any_script():  # type: ignore[arg-type]
        found = colour_point(report)
        if found is not None:
            written += _save(_draw_filters(*found), place, "figure1")
        written += _save(_draw_tradeoff(report), place, "tradeoff")
    return tuple(written)


def colour_point(report: SweepReport) -> tuple[PointResult, Array, Array] | None:
    """Return a monochromatic point with its layer's filters before and after, or None.

    Of the points with the most colours the one with the least error is taken.
    """
    points = [p for p in report.points if p.scheme_name == "mono" and p in report.filters]
    if not points:
        return None
    point = min(points, key=lambda p: (-p.ranks["C"], p.held_out_error))
    with np.load(report.filters[point]) as arrays:
        return point, arrays["original"], arrays["fitted"]


def _draw_filters(point: PointResult, before: Array, after: Array) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = cast("Any", figure.subfigures(1, 2, width_ratios=[1.6, 1]))
    panels = ((before, "original"), (after, f"{point.scheme}, {point.metric}"))
    for place, (weight, title) in enumerate(panels):
        axes = left.add_subplot(1, 2, place + 1, projection="3d")
        _draw_cloud(axes, weight, float(np.abs(before).max()))
        axes.set_title(title)
    name = printable_name(point.layer)
    heading = f"{name}: weights in the space of colours, one colour per output"
    left.suptitle(heading, parse_math=False)
    # The filters with the most energy: those that show something.
    order = np.argsort(-np.sum(before**2, axis=(1, 2, 3)), kind="stable")[: _FILTERS**2 // 2]
    grid = right.subplots(_FILTERS, 2 * len(order) // _FILTERS + 2 * (len(order) % _FILTERS > 0))
    grid = np.asarray(grid)
    for axes in grid.flat:
        axes.axis("off")
    for place, output in enumerate(order):
        row, column = place % _FILTERS, 2 * (place // _FILTERS)
        span = float(np.abs(before[output]).max()) or 1.0
        for offset, weight in enumerate((before, after)):
            picture = 0.5 + 0.5 * weight[output].transpose(1, 2, 0) / span
            grid[row, column + offset].imshow(np.clip(picture, 0, 1), interpolation="nearest")
    right.suptitle("filters, original and approximate side by side")
    return figure


def _draw_cloud(axes: Any, weight: Array, span: float) -> None:
    from matplotlib import colormaps

    outputs = len(weight)
    points = weight.transpose(0, 2, 3, 1).reshape(-1, 3)
    inks = colormaps["hsv"](np.repeat(np.arange(outputs) / outputs, len(points) // outputs))
    axes.scatter(*points.T, c=inks, s=2, linewidths=0)
    for name in "xyz":
        getattr(axes, f"set_{name}lim")(-span, span)
    axes.set_xlabel("channel 1")
    axes.set_ylabel("channel 2")
    axes.set_zlabel("channel 3")
    axes.set_box_aspect(None, zoom=0.85)  # room for that label


def _draw_tradeoff(report: SweepReport) -> Figure:
    from matplotlib.figure import Figure

    layers = list(dict.fromkeys(point.layer for point in report.points))
    loss = loss_name(report)
    columns = 1 if loss is None else 2
    figure = Figure(figsize=(5 * columns, 2.8 * len(layers)), layout="constrained")
    axes = np.asarray(figure.subplots(len(layers), columns, squeeze=False))
    for row, layer in enumerate(layers):
        points = [point for point in report.points if point.layer == layer]
        _draw_points(axes[row, 0], [(p, 100 * p.held_out_error) for p in points])
        axes[row, 0].set_ylabel("output error, %")
        axes[row, 0].set_yscale("log")
        if loss is not None:
            known = [(p, value) for p in points if (value := network_loss(p)) is not None]
            _draw_points(axes[row, 1], known)
            axes[row, 1].set_ylabel(loss)
        for each in axes[row]:
            each.set_title(printable_name(layer), parse_math=False)  # names are no formulas
    axes[0, 0].legend(fontsize=6)
    return figure


def _draw_points(axes: Axes, points: list[tuple[PointResult, float]]) -> None:
    """Draw one line for each scheme and metric: colour for the scheme, dashes for Frobenius."""
    schemes = list(dict.fromkeys(point.scheme_name for point, _ in points))
    lines: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for point, value in points:
        reduction = point.mac_reduction or point.param_reduction
        lines[point.scheme_name, point.metric].append((reduction, value))
    for (scheme, metric), places in lines.items():
        index = schemes.index(scheme)
        x, y = zip(*sorted(places), strict=True)
        axes.plot(
            x,
            y,
            color=f"C{index % 10}",
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=4,
            linestyle="--" if metric == "frobenius" else "-",
            label=f"{scheme}, {metric}",
        )
    axes.set_xlabel("times fewer multiply-adds")
    axes.grid(alpha=0.3)


def _save(figure: Figure, folder: Path, stem: str) -> list[str]:
    names = []
    for kind, metadata in _METADATA.items():
        name = f"{stem}.{kind}"
        figure.savefig(folder / name, dpi=150, metadata=metadata)
        names.append(name)
    return names
