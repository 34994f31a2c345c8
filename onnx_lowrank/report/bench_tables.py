"""Tables of `benchmark` for a terminal of 80 columns."""

from __future__ import annotations

from rich.console import Console

from onnx_lowrank.measure.benchmarking import BenchReport, ContenderResult, SettingResult
from onnx_lowrank.report.console import new_table, number, open_console, print_table, say
from onnx_lowrank.runtime.statistics import CONFIDENCE

MB = 1e6


def print_benchmark(report: BenchReport, console: Console | None = None) -> None:
    """Print two tables for each setting: times, then sizes and outputs; then machine and notes."""
    console = console or open_console()
    for setting in report.settings:
        _print_setting(setting, report.provider, console)
    machine = report.machine
    say(
        f"{machine['cpu'] or machine['platform']}, {machine['cores']} cores; "
        + ", ".join(
            f"{k} {v}" for k, v in machine["versions"].items() if k.startswith("onnxruntime")
        ),
        style="dim",
        console=console,
        wrap=True,
    )
    for note in report.notes:
        say(f"note: {note}", console=console, wrap=True)


def _print_setting(setting: SettingResult, provider: str, console: Console) -> None:
    threads = "onnxruntime's choice" if setting.threads is None else setting.threads
    say(
        f"batch {setting.batch}, threads: {threads}, {provider}; {setting.repeats} repeats of "
        f"{setting.rounds} rounds",
        console=console,
        wrap=True,
    )
    times = new_table(
        "model", "median ms", "p90", "p99", "per s", "ratio", f"{CONFIDENCE:.0%} interval"
    )
    sizes = new_table("model", "load ms", "file MB", "memory MB", "peak MB", "SQNR dB", "outputs")
    for contender in setting.contenders:
        times.add_row(contender.name, *_times(contender))
        sizes.add_row(contender.name, *_sizes(contender))
    print_table(times, console)
    print_table(sizes, console)
    if reasons := setting.noise.reasons:
        say("noisy machine: " + "; ".join(reasons), style="yellow", console=console, wrap=True)
    say("", console=console)


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
