"""Tables of `sweep`, one for each scheme: Tables 2 to 4 of Denton et al. 2014 for any network."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from onnx_lowrank.files import write_text
from onnx_lowrank.pipelines.sweeping import PointResult, SweepReport
from onnx_lowrank.report.console import new_table, open_console, print_table, say
from onnx_lowrank.text import markdown_cell

# The published tables first, under their numbers; all other schemes follow, under their names.
PUBLISHED = {
    "mono": "Table 2: monochromatic",
    "bicluster-svd": "Table 3: biclustering and SVD",
    "bicluster-outer": "Table 4: biclustering and outer products",
}


@dataclass(frozen=True)
class SchemeTable:
    """One table as text: what it is called, its header (of two lines where need be), its rows."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_markdown(self) -> str:
        """Return it in Markdown."""
        header = tuple(name.replace("\n", " ") for name in self.header)
        rows = (tuple(map(markdown_cell, row)) for row in self.rows)
        lines = [header, ("---",) * len(header), *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def scheme_tables(report: SweepReport) -> tuple[SchemeTable, ...]:
    """Return one table for each scheme; a row holds a layer and ranks, a column a metric.

    The loss is what the report knows best: points of accuracy lost, else points of top-1
    disagreement, both of the whole network, beside the error of the layer's output, in percent.
    """
    schemes = list(dict.fromkeys(point.scheme_name for point in report.points))
    schemes.sort(key=lambda name: list(PUBLISHED).index(name) if name in PUBLISHED else 99)
    return tuple(_scheme_table(report, name) for name in schemes)


def network_loss(point: PointResult) -> float | None:
    """Return the points of accuracy lost, else those of top-1 disagreement; None if not known."""
    if point.drop_points is not None:
        return point.drop_points
    return None if point.top1_agreement is None else 100 * (1 - point.top1_agreement)


def loss_name(report: SweepReport) -> str | None:
    """Return what `network_loss` counts, or None where no point has it."""
    if any(point.drop_points is not None for point in report.points):
        return "points of accuracy that the network loses"
    if any(point.top1_agreement is not None for point in report.points):
        return "samples whose top-1 class changes, %"
    return None


def legend(report: SweepReport) -> str:
    """Return what the columns of the tables hold."""
    loss = loss_name(report)
    return (
        "error: of the layer's output on held-out samples, relative, %; "
        + (f"loss: {loss}; " if loss else "")
        + "MACs, params: times fewer"
    )


def _scheme_table(report: SweepReport, scheme: str) -> SchemeTable:
    points = [point for point in report.points if point.scheme_name == scheme]
    metrics = list(dict.fromkeys(point.metric for point in points))
    rows: dict[tuple[str, str], dict[str, PointResult]] = defaultdict(dict)
    for point in points:
        rows[point.layer, point.scheme][point.metric] = point
    ranks = tuple(points[0].ranks)
    loss = loss_name(report)
    header = ["layer", *ranks, *(f"error\n{metric}" for metric in metrics)]
    if loss is not None:
        header += [f"loss\n{metric}" for metric in metrics]
    header += ["MACs", "params"]
    return SchemeTable(
        title=PUBLISHED.get(scheme, scheme),
        header=tuple(header),
        rows=tuple(
            _row(layer, ranks, [found.get(metric) for metric in metrics], loss is not None)
            for (layer, _), found in rows.items()
        ),
    )


def _row(
    layer: str, ranks: tuple[str, ...], points: list[PointResult | None], with_loss: bool
) -> tuple[str, ...]:
    known = next(point for point in points if point is not None)
    cells = [layer, *(str(known.ranks[rank]) for rank in ranks)]
    cells += [f"{100 * p.held_out_error:.2f}" if p else "" for p in points]
    if with_loss:
        losses = (network_loss(p) if p else None for p in points)
        cells += ["" if loss is None else f"{loss:.2f}" for loss in losses]
    reduction = known.mac_reduction
    return (
        *cells,
        "" if reduction is None else f"{reduction:.2f}",
        f"{known.param_reduction:.2f}",
    )


def print_sweep(report: SweepReport, console: Console | None = None) -> None:
    """Print the tables, then what was left out and why."""
    console = console or open_console()
    for found in scheme_tables(report):
        table = new_table(*found.header, title=found.title)
        for row in found.rows:
            table.add_row(*row)
        print_table(table, console)
        say("", console=console)
    say(legend(report), console=console, wrap=True)
    say(
        f"{len(report.points)} points on {report.held_out_images} held-out samples"
        + (f", {report.reused} of them from an earlier run" if report.reused else ""),
        console=console,
        wrap=True,
    )
    reasons: dict[str, list[str]] = defaultdict(list)
    for entry in report.skipped:
        reasons[entry.reason].append(
            entry.layer if entry.scheme is None else f"{entry.layer} {entry.scheme}"
        )
    for reason, entries in reasons.items():
        more = f" and {len(entries) - 3} more" if len(entries) > 3 else ""
        say(f"left out {', '.join(entries[:3])}{more}: {reason}", console=console, wrap=True)
    for note in report.notes:
        say(note, console=console, wrap=True)


def write_tables(report: SweepReport, folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Write ``tables.md`` into a folder, and return the names of the files written."""
    parts = [f"{table.title}\n\n{table.to_markdown()}" for table in scheme_tables(report)]
    write_text(Path(folder) / "tables.md", "\n".join([*parts, legend(report) + "\n"]))
    return ("tables.md",)
