"""The parts of a report that come from `bench`, `profile` and `sweep`, and the machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

from onnx_lowrank.report.console import short_count
from onnx_lowrank.report.html import figures
from onnx_lowrank.report.html.cells import (
    ABSENT,
    NOT_MEASURED,
    form,
    interval,
    inverse,
    number,
    percent,
    times,
)
from onnx_lowrank.report.html.content import Block, Drawing, Facts, Table
from onnx_lowrank.report.html.runs import Run

_MAX_BARS = 40


def summary(run: Run) -> list[tuple[str, str, str]]:
    """Return what is to be read at a glance of a `bench` or a `profile`."""
    entries = []
    if run.kind == "bench":
        for setting in run.data["settings"]:
            for each in setting["contenders"]:
                latency = f"{number(each['latency']['median_ms'])} ms, {_setting(setting)}"
                if each["ratio"] is None:
                    entries.append(("First model", "1 ×", f"{each['name']}: {latency}"))
                else:
                    speed = times(inverse(each["ratio"]["ratio"]))
                    entries.append(("Speed", speed, f"{each['name']}: {latency}"))
        return entries
    for key, title in (("model", "Time of a run"), ("compared", "Time of the other")):
        model = run.data[key]
        if model:
            entries.append((title, f"{number(model['wall_median_ms'])} ms", model["name"]))
            share = f"{percent(model['attributed'], '{:.1f}')} %"
            entries.append(("Attributed", share, f"to layers and nodes of {model['name']}"))
    return entries


def _setting(setting: dict[str, Any]) -> str:
    threads = "default" if setting["threads"] is None else setting["threads"]
    return f"batch {form(setting['batch'], '{}')}, threads {threads}"


def bench(run: Run) -> list[Block]:
    """Return the ratios of latencies and all figures of a `bench`."""
    if run.kind != "bench":
        return []
    names, intervals, rows = [], [], []
    for setting in run.data["settings"]:
        for each in setting["contenders"]:
            latency, ratio, memory = each["latency"], each["ratio"], each["memory"]
            if ratio and None not in (ratio["ratio"], ratio["low"], ratio["high"]):
                several = len(run.data["settings"]) > 1
                names.append(f"{each['name']}, {_setting(setting)}" if several else each["name"])
                intervals.append((ratio["ratio"], ratio["low"], ratio["high"]))
            rows.append(
                (
                    each["name"],
                    form(setting["batch"], "{}"),
                    "default" if setting["threads"] is None else str(setting["threads"]),
                    *(number(latency[key]) for key in ("median_ms", "p90_ms", "p99_ms")),
                    interval(ratio) if ratio else "1",
                    number(each["throughput_per_s"]),
                    form(each["sqnr_db"], "{:.1f}"),
                    ABSENT if each["file_bytes"] is None else f"{each['file_bytes'] / 1e6:.2f}",
                    ABSENT if memory is None else _megabytes(memory),
                )
            )
    columns = (
        *("model", "batch", "threads", "median, ms", "p90, ms", "p99, ms"),
        *("over the first's", "samples/s", "SQNR, dB", "file, MB", "peak memory, MB"),
    )
    blocks: list[Block] = []
    if names:
        blocks.append(
            Drawing(
                run.slug("latency"),
                f"{run.name}: latency over the first model's",
                "; ".join(
                    f"{name}: {middle:.3f}, {low:.3f} to {high:.3f}"
                    for name, (middle, low, high) in zip(names, intervals, strict=True)
                )
                + ".",
                lambda: figures.draw_intervals(names, intervals),
            )
        )
    return [*blocks, Table(f"{run.name}: whole models", columns, tuple(rows))]


def _megabytes(memory: dict[str, Any]) -> str:
    peak = memory["peak"]
    return ABSENT if peak is None else f"{peak / 1e6:.0f}"


def profile(run: Run) -> list[Block]:
    """Return the time of every layer, of both models where two were profiled."""
    if run.kind != "profile":
        return []
    models = [model for model in (run.data["model"], run.data["compared"]) if model]
    times = [{row["name"]: row for row in model["rows"]} for model in models]
    names = list(dict.fromkeys(name for rows in times for name in rows))

    def ms(index: int, name: str) -> float:
        row = times[index].get(name)
        return row["mean_ms"] or 0.0 if row else 0.0

    longest = sorted(names, key=lambda name: -max(ms(i, name) for i in range(len(times))))
    shown = [name for name in names if name in longest[:_MAX_BARS]]
    left = f"; the {_MAX_BARS} longest of {len(names)}" if len(names) > _MAX_BARS else ""
    titles = ("before", "after") if len(models) > 1 else ("time",)
    series = [(title, [ms(i, name) for name in shown]) for i, title in enumerate(titles)]
    rows = []
    for name in names:
        found = [rows_.get(name) for rows_ in times]
        first = found[0]
        cells = [
            f"{form(r['mean_ms'], '{:.3f}')} ± {form(r['sd_ms'], '{:.3f}')}" if r else ABSENT
            for r in found
        ]
        rows.append(
            (
                name,
                cells[0],
                percent(first["share"], "{:.1f}") if first else ABSENT,
                short_count(first["macs"]) if first and first["macs"] else ABSENT,
                number(first["gflops"]) if first and first["gflops"] else ABSENT,
                *cells[1:],
            )
        )
    columns = ("layer", "ms, mean ± SD", "share, %", "MACs", "GFLOP/s")
    after = ("after, ms",) if len(models) > 1 else ()
    threads = "default" if run.data["threads"] is None else run.data["threads"]
    runs, batch = (form(run.data[key], "{}") for key in ("runs", "batch"))
    settings = f"{runs} runs, batch {batch}, threads {threads}"
    if not shown:
        return []
    return [
        Drawing(
            run.slug("times"),
            f"{run.name}: time of the layers, {settings}{left}",
            f"Bars of {len(shown)} layers and nodes; the figures are in the table.",
            lambda: figures.draw_bars(shown, series, "milliseconds"),
        ),
        Table(f"{run.name}: time of the layers, {settings}", (*columns, *after), tuple(rows)),
    ]


def sweep(run: Run) -> list[Block]:
    """Return error against reduction for each layer of a `sweep`, and the best points."""
    if run.kind != "sweep":
        return []
    lines: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for point in run.data["points"]:
        reduction = point["mac_reduction"] or point["param_reduction"]
        if reduction is None or point["held_out_error"] is None:
            continue
        scheme = f"{point['scheme'].partition(':')[0]}, {point['metric']}"
        lines[point["layer"]][scheme].append((reduction, 100 * point["held_out_error"]))
    blocks: list[Block] = [
        Drawing(
            run.slug(f"sweep-{index}"),
            f"{run.name}: {layer}",
            f"Error of the output of {layer} against times fewer multiply-adds, one line for each "
            f"of {len(found)} schemes and metrics.",
            partial(figures.draw_sweep, tuple(found.items())),
        )
        for index, (layer, found) in enumerate(list(lines.items())[:_MAX_BARS], 1)
    ]
    rows = tuple(
        (
            point["layer"],
            point["scheme"],
            point["metric"],
            percent(point["held_out_error"]),
            number(point["mac_reduction"] or point["param_reduction"]),
            form(point["drop_points"], "{:.2f}"),
            form(point["sqnr_db"], "{:.1f}"),
        )
        for point in run.data["points"]
    )
    columns = ("layer", "scheme", "metric", "error, %", "times fewer", "points lost", "SQNR, dB")
    return [*blocks, Table(f"{run.name}: points", columns, rows, text=(0, 1, 2))]


def noise(run: Run) -> list[str]:
    """Return the signs of other work on the machine during a `bench` or a `profile`."""
    if run.kind == "profile":
        return list(run.data["noise"]["reasons"])
    return [
        f"{_setting(setting)}: {reason}"
        for setting in run.data["settings"]
        for reason in setting["noise"]["reasons"]
    ]


def skipped(entry: dict[str, Any]) -> str:
    """Return one sentence on what a sweep left out."""
    return ", ".join(str(value) for value in entry.values() if value is not None)


def environment(runs: Sequence[Run], machine: dict[str, Any] | None) -> list[Block]:
    """Return every machine that a run names, once, and the one that writes the report."""
    groups: list[tuple[dict[str, Any], list[Run]]] = []
    for run in runs:
        found = None if "machine" in run.missing else run.data.get("machine")
        same = next((group for other, group in groups if other == found), None)
        if same is not None:
            same.append(run)
        elif found:
            groups.append((found, [run]))
    blocks: list[Block] = [
        _machine(f"{', '.join(run.name for run in group)}: measured on", found, group)
        for found, group in groups
    ]
    return [*blocks, _machine("This report: written on", machine, ())] if machine else blocks


def _machine(title: str, machine: dict[str, Any], runs: Sequence[Run]) -> Facts:
    versions = machine["versions"]
    sets = ", ".join(machine["instruction_sets"])
    kernels = {True: "built", False: "not built", None: NOT_MEASURED}[machine["custom_ops"]]
    entries = [
        ("Processor", str(machine["cpu"]), f"{form(machine['cores'], '{}')} cores; {sets}"),
        ("System", str(machine["platform"]), str(machine["kernel"])),
        ("Python", str(machine["python"]), f"onnxruntime {versions.get('onnxruntime', 'none')}"),
    ]
    if runs:
        providers = sorted({str(run.data["provider"]).upper() for run in runs})
        threads = "; ".join(f"{run.name}: {_threads(run)}" for run in runs)
        entries.append(("Engine", " and ".join(providers), f"threads: {threads}"))
    said = ", ".join(f"{name} {value}" for name, value in versions.items())
    return Facts(title, (*entries, ("Versions", "", f"{said}; kernel library {kernels}")))


def _threads(run: Run) -> str:
    """Return the numbers of intra-op threads that a run asked for."""
    settings = run.data["settings"] if run.kind == "bench" else (run.data,)
    asked = dict.fromkeys(setting["threads"] for setting in settings)
    return ", ".join("default" if each is None else str(each) for each in asked)
