"""The sections of models/RESULTS.md, in Markdown, from the JSON of the runs."""

from __future__ import annotations

from typing import Any

import seed_tables
from seed_tables import table

from onnx_lowrank.report.console import short_count


def on_machine(report: dict[str, Any], *noises: dict[str, Any]) -> list[str]:
    """Return sentences on where something was measured, and what disturbed it."""
    machine = report["machine"]
    versions = ", ".join(f"{n} {machine['versions'][n]}" for n in ("onnxruntime", "numpy"))
    cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    said = f"{machine['cpu']}, {cores}, {versions}, provider {report['provider']}."
    reasons = dict.fromkeys(reason for noise in noises for reason in noise["reasons"])
    other = f" Signs of other work: {'; '.join(reasons)}." if reasons else ""
    return [said + other, ""]


def bench_table(report: dict[str, Any]) -> list[str]:
    rows: list[tuple[object, ...]] = []
    for setting in report["settings"]:
        for each in setting["contenders"]:
            ratio = each["ratio"]
            rows.append(
                (
                    each["name"],
                    setting["batch"],
                    setting["threads"] or "default",
                    f"{each['latency']['median_ms']:.3g}",
                    f"{each['latency']['p90_ms']:.3g}",
                    f"{ratio['ratio']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})"
                    if ratio
                    else "1",
                    "" if each["sqnr_db"] is None else f"{each['sqnr_db']:.1f}",
                    f"{each['file_bytes'] / 1e6:.2f}",
                )
            )
    columns = (
        *("model", "batch", "threads", "median, ms", "p90, ms"),
        *("over the first's", "SQNR, dB", "file, MB"),
    )
    noises = [setting["noise"] for setting in report["settings"]]
    return [*table(columns, rows), *on_machine(report, *noises)]


def cost_table(report: dict[str, Any]) -> list[str]:
    rows: list[tuple[object, ...]] = [
        (
            layer["name"],
            layer["scheme"] or "",
            short_count(layer["macs"]),
            short_count(layer["macs_new"]),
            f"{layer['mac_reduction']:.2f}" if layer["mac_reduction"] else "",
        )
        for layer in (*report["cost"]["layers"], report["cost"]["total"])
    ]
    return table(("layer", "scheme", "MACs", "MACs after", "times fewer"), rows)


def verdict(report: dict[str, Any]) -> list[str]:
    """Return what was lost: errors of outputs, and accuracy where there are labels."""
    found = report["verification"]
    if found is None:
        return []
    lines = [
        f"Output `{output['name']}` over {found['samples']} samples: "
        f"SQNR {output['sqnr_db']:.1f} dB."
        for output in found["outputs"]
        if output.get("sqnr_db") is not None
    ]
    if found["accuracy"]:
        low, high = found["accuracy"]["drop_interval"]
        lines.append(
            f"Accuracy lost: {found['accuracy']['drop_points']:.2f} points "
            f"({low:.2f} to {high:.2f})."
        )
    passed = report.get("passed", found["passed"])
    failures = [*report.get("failures", found["failures"])]
    return [*lines, "Passed." if passed else f"Failed: {'; '.join(failures)}.", ""]


def write_main(data: dict[str, Any]) -> list[str]:
    report = data["compress"]
    return [*cost_table(report), *verdict(report), *bench_table(data["bench"])]


def write_table1(data: dict[str, Any]) -> list[str]:
    report = data["profile"]
    model = report["model"]
    clocks = model["wall_median_ms"] / model["profiled_wall_median_ms"]
    said = (
        f"Batch {report['batch']}, {report['runs']} runs, threads: {report['threads']}. "
        f"Attributed to layers and nodes: {100 * model['attributed']:.2f} %. Sum of all nodes "
        f"over the wall clock: {clocks * model['sum_over_wall']:.3f} of the same runs, "
        f"{model['sum_over_wall']:.3f} of runs without the profiler, in turns with them."
    )
    theirs = (
        "Theirs: Table 1 of the paper, the same network and batch, 8 runs on their CPU. On their "
        "GPU a run took 1.18 s, 39.7 % of it in the second Conv."
    )
    return [*seed_tables.times(report), said, theirs, *on_machine(report, report["noise"])]


def write_tables(data: dict[str, Any]) -> list[str]:
    report = data["sweep"]
    said = (
        f"Points of accuracy lost with one layer replaced and nothing trained, on "
        f"{report['held_out_images']} held-out images, fits by "
        f"{report['settings']['calibration_images']} others; a negative figure is a gain. Theirs "
        "are points of error of their network on ImageNet, 1000 classes; ours is the network `zf` "
        "of `models/README.md`, 10 classes: the columns show which way each metric goes, not who "
        "is better. They count the operations of conv2 by SVD in its core alone."
    )
    return [said, "", *seed_tables.losses(report), *on_machine(report)]


def write_itself(data: dict[str, Any]) -> list[str]:
    ratios = [t["settings"][0]["contenders"][1]["ratio"] for t in data["trials"]]
    inside = sum(r["low"] <= 1 <= r["high"] for r in ratios)
    rows: list[tuple[object, ...]] = [
        (i, f"{r['ratio']:.4f}", f"{r['low']:.4f}", f"{r['high']:.4f}")
        for i, r in enumerate(ratios, 1)
    ]
    said = f"{inside} of {len(ratios)} intervals contain 1."
    noises = [t["settings"][0]["noise"] for t in data["trials"]]
    noisy = f"{sum(noise['noisy'] for noise in noises)} of the trials ran beside other work."
    return [
        said,
        noisy,
        "",
        *table(("trial", "ratio", "low", "high"), rows),
        *on_machine(data["trials"][0]),
    ]


def write_planner(data: dict[str, Any]) -> list[str]:
    report = data["search"]
    timed = report["search"]["latency"]
    said = f"Latency over the original's: {timed['ratio']:.3f} "
    said += f"({timed['low']:.3f} to {timed['high']:.3f}), measured by the search."
    return [*cost_table(report), said, *verdict(report)]


def write_vgg16(data: dict[str, Any]) -> list[str]:
    rows: list[tuple[object, ...]] = []
    for name, runs in data.items():
        report = runs["search"]
        timed, total = report["search"]["latency"], report["cost"]["total"]
        rows.append(
            (
                name,
                f"{timed['ratio']:.3f} ({timed['low']:.3f} to {timed['high']:.3f})",
                f"{report['search']['predicted_ratio']:.3f}",
                f"{total['mac_reduction']:.2f}",
                f"{total['param_reduction']:.2f}",
                _kept(report["verification"]),
                _kept(runs["elsewhere"]),
                "passed" if report["passed"] else f"failed: {'; '.join(report['failures'])}",
            )
        )
    first = next(iter(data.values()))
    columns = ("asked for", "time (99 % interval)", "predicted", "MACs", "parameters")
    columns = (*columns, "top-1 agreement, SQNR", "on wallpapers", "verdict")
    said = "Time over the original's; MACs and parameters times fewer. Agreement and SQNR on "
    said += f"{first['search']['verification']['samples']} crops of photographs that neither fits "
    said += f"nor search saw, and on {first['elsewhere']['samples']} crops of photographs of other "
    said += "people, which nothing in this project was made with."
    lines = [said, "", *table(columns, rows), *on_machine(first["search"])]
    for name, runs in data.items():
        lines += [f"{name}:", "", *cost_table(runs["search"])]
    return lines


def _kept(found: dict[str, Any]) -> str:
    """Return the agreement and the lowest SQNR of a verification."""
    decibels = min(output["sqnr_db"] for output in found["outputs"])
    return f"{100 * found['agreement']['top1']:.2f} %, {decibels:.1f} dB"


def write_int8(data: dict[str, Any]) -> list[str]:
    return [
        line for name, report in data.items() for line in (f"`{name}`", "", *bench_table(report))
    ]
