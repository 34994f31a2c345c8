"""Tables of `profile` for a terminal of 80 columns."""

from __future__ import annotations

from rich.console import Console

from onnx_lowrank.measure.profiling import UNATTRIBUTED, ModelProfile, ProfileReport, Row
from onnx_lowrank.report.console import (
    TextTable,
    new_table,
    number,
    open_console,
    print_table,
    say,
)

# Nodes that are no layers and take less than this share are shown together.
SMALL = 0.005


def print_profile(report: ProfileReport, console: Console | None = None) -> None:
    """Print a row for each layer, and what the sums and the peak say."""
    console = console or open_console()
    threads = "onnxruntime's choice" if report.threads is None else report.threads
    say(
        f"batch {report.batch}, threads: {threads}, {report.provider}; {report.runs} runs",
        console=console,
        wrap=True,
    )
    table = _compared(report) if report.compared else _single(report)
    print_table(table, console)
    for model in (report.model, report.compared):
        if model is not None:
            say(_sums(model), console=console, wrap=True)
    say(
        f"peak: {report.peak.gflops:.0f} GFLOP/s, the {report.peak.method}",
        console=console,
        wrap=True,
    )
    machine = report.machine
    say(
        f"{machine['cpu'] or machine['platform']}, {machine['cores']} cores",
        style="dim",
        console=console,
        wrap=True,
    )
    if reasons := report.noise.reasons:
        say("noisy machine: " + "; ".join(reasons), style="yellow", console=console, wrap=True)
    for note in report.notes:
        say(f"note: {note}", console=console, wrap=True)


def _single(report: ProfileReport) -> TextTable:
    table = new_table("layer", "op", "mean ms", "sd", "share", "MACs", "GFLOP/s", "of peak")
    shown, rest = _split(report.model)
    for row in shown:
        gflops = row.gflops
        table.add_row(
            row.name,
            row.op,
            number(1e3 * row.mean),
            number(1e3 * row.sd),
            f"{row.share:.1%}",
            count(row.macs),
            "" if gflops is None else number(gflops),
            "" if gflops is None else f"{gflops / report.peak.gflops:.0%}",
        )
    if rest:
        table.add_row(
            f"{len(rest)} others",
            "",
            number(1e3 * sum(row.mean for row in rest)),
            "",
            f"{sum(row.share for row in rest):.1%}",
        )
    total = report.model.total
    table.add_section()
    table.add_row(
        "all", "", number(1e3 * float(total.mean())), number(1e3 * float(total.std(ddof=1)))
    )
    return table


def _compared(report: ProfileReport) -> TextTable:
    assert report.compared is not None
    other = report.compared
    table = new_table("layer", "op", "mean ms", "sd", "new ms", "sd", "faster", "MACs", "new")
    shown, rest = _split(report.model)
    names = {row.name for row in report.model.rows}
    for row in shown:
        new = other.row(row.name)
        table.add_row(
            row.name,
            row.op,
            number(1e3 * row.mean),
            number(1e3 * row.sd),
            *(("", "", "") if new is None else _new_times(row, new)),
            count(row.macs),
            count(new.macs) if new else "",
        )
    old_rest = sum(row.mean for row in rest)
    new_rest = sum(
        row.mean
        for row in other.rows
        if row.name not in names or any(row.name == r.name for r in rest)
    )
    if rest or new_rest:
        table.add_row("others", "", number(1e3 * old_rest), "", number(1e3 * new_rest))
    before, after = float(report.model.total.mean()), float(other.total.mean())
    table.add_section()
    table.add_row(
        "all", "", number(1e3 * before), "", number(1e3 * after), "", f"{before / after:.2f}x"
    )
    return table


def _new_times(row: Row, new: Row) -> tuple[str, str, str]:
    faster = f"{row.mean / new.mean:.2f}x" if new.mean else ""
    return number(1e3 * new.mean), number(1e3 * new.sd), faster


def _split(model: ModelProfile) -> tuple[list[Row], list[Row]]:
    """Return the rows that are shown by themselves, and the others."""
    shown: list[Row] = []
    rest: list[Row] = []
    for row in model.rows:
        keep = row.layer or row.share >= SMALL or row.name == UNATTRIBUTED
        (shown if keep else rest).append(row)
    return shown, rest


def _sums(model: ModelProfile) -> str:
    return (
        f"{model.name}: {model.attributed:.1%} of the time is attributed; all nodes take "
        f"{model.sum_over_wall:.1%} of the {number(1e3 * model.wall_median)} ms that a run takes "
        "without profiler"
    )


def count(value: int | None) -> str:
    """Format a count with three digits and a unit."""
    if value is None:
        return ""
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return str(value)
