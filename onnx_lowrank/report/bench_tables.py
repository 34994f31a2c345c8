"""Tables of `benchmark` for a terminal of 80 columns."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from onnx_lowrank.benchmarking import BenchReport, ContenderResult, SettingResult
from onnx_lowrank.report.console import number, open_console
from onnx_lowrank.runtime.statistics import CONFIDENCE

MB = 1e6


def print_benchmark(report: BenchReport, console: Console | None = None) -> None:
    """Print two tables for each setting: times, then sizes and outputs; then machine and notes."""
    console = console or open_console()
    for setting in report.settings:
        _print_setting(setting, report.provider, console)
    machine = report.machine
    console.print(
        f"{machine['cpu'] or machine['platform']}, {machine['cores']} cores; "
        + ", ".join(
            f"{k} {v}" for k, v in machine["versions"].items() if k.startswith("onnxruntime")
        ),
        style="dim",
        highlight=False,
    )
    for note in report.notes:
        console.print(f"note: {note}", highlight=False)


def _print_setting(setting: SettingResult, provider: str, console: Console) -> None:
    threads = "onnxruntime's choice" if setting.threads is None else setting.threads
    console.print(
        f"batch {setting.batch}, threads: {threads}, {provider}; {setting.repeats} repeats of "
        f"{setting.rounds} rounds",
        highlight=False,
    )
    times = _table(
        "model", "median ms", "p90", "p99", "per s", "ratio", f"{CONFIDENCE:.0%} interval"
    )
    sizes = _table("model", "load ms", "file MB", "memory MB", "peak MB", "SQNR dB", "outputs")
    for contender in setting.contenders:
        times.add_row(contender.name, *_times(contender))
        sizes.add_row(contender.name, *_sizes(contender))
    console.print(times)
    console.print(sizes)
    if reasons := setting.noise.reasons:
        console.print("noisy machine: " + "; ".join(reasons), style="yellow", highlight=False)
    console.print()


def _times(contender: ContenderResult) -> tuple[str, ...]:
    latency, ratio = contender.latency, contender.ratio
    return (
        *(number(1e3 * value) for value in (latency.median, latency.p90, latency.p99)),
        number(contender.throughput),
        f"{ratio.ratio:.3f}" if ratio else "",
        f"{ratio.low:.3f} .. {ratio.high:.3f}" if ratio else "",
    )


def _sizes(contender: ContenderResult) -> tuple[str, ...]:
    memory = contender.memory
    return (
        number(1e3 * contender.load_seconds),
        number(contender.file_size / MB),
        number(memory.resident / MB) if memory else "?",
        number(memory.peak / MB) if memory else "?",
        "" if contender.sqnr_db is None else f"{contender.sqnr_db:.1f}",
        f"vary in {contender.differing_blocks}" if contender.differing_blocks else "repeat",
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    return table
