"""Real runs and the page on them: ``python models/results.py run NAME``, then ``write``.

``run`` carries out the command of one section and keeps its JSON in models/results/NAME.json;
``write`` makes models/RESULTS.md of the files that are there. No figure is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import fetch

from onnx_lowrank.errors import OnnxLowRankError
from onnx_lowrank.graph.io import write_text

FOLDER = Path(__file__).with_name("results")
PAGE = Path(__file__).with_name("RESULTS.md")
TRIALS = 20
VGG_SHAPE = ("--input-shape", "input_1=1,224,224,3")
MNIST = ("--preprocess", "unit:mean=0.1307,std=0.3081")
COMMAND = (sys.executable, "-c", "from onnx_lowrank.cli import main; main()")


def olr(*arguments: object) -> Any:
    """Run a command with ``--json`` and return what it printed; its exit code 1 is a result."""
    call = [*COMMAND, *map(str, arguments), "--json"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode > 1:
        raise OnnxLowRankError(f"{' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return json.loads(done.stdout)


@dataclass(frozen=True)
class Part:
    """One section: its title, the commands as they are told, how they run, and its tables."""

    title: str
    commands: tuple[str, ...]
    run: Callable[[], dict[str, Any]]
    write: Callable[[dict[str, Any]], list[str]]


def run_main() -> dict[str, Any]:
    network = fetch.network("vgg16")
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "vgg16-lowrank.onnx"
        compressed = olr("compress", network, "-o", small, *VGG_SHAPE)
        bench = olr("bench", network, small, *VGG_SHAPE, "--threads", 1, "--seconds", 20)
    return {"compress": compressed, "bench": bench}


def run_table1() -> dict[str, Any]:
    network = fetch.network("zfnet512")
    return {"profile": olr("profile", network, "--batch", 128, "--runs", 8, "--threads", 1)}


def run_itself() -> dict[str, Any]:
    network = fetch.network("squeezenet")
    trials = []
    for seed in range(TRIALS):
        options = ("--threads", 1, "--seconds", 2, "--seed", seed)
        trials.append(olr("bench", network, network, *options))
    return {"trials": trials}


def run_planner() -> dict[str, Any]:
    data = datasets.dataset("mnist5k") / "test.npz"
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "mnist-lowrank.onnx"
        options = ("--data", data, *MNIST, "--max-drop", 1, "--threads", 1, "--keep-anyway")
        return {"search": olr("compress", fetch.network("mnist"), "-o", small, *options)}


def run_int8() -> dict[str, Any]:
    options = ("--int8", "--threads", 1, "--seconds", 5)
    return {name: olr("bench", fetch.network(name), *options) for name in ("squeezenet", "mnist")}


def table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    """Return a table in Markdown; a bar in a name is escaped."""
    lines = [columns, ("---",) * len(columns), *rows]
    return ["| " + " | ".join(str(c).replace("|", "\\|") for c in row) + " |" for row in lines] + [
        ""
    ]


def on_machine(report: dict[str, Any], *noises: dict[str, Any]) -> list[str]:
    """Return sentences on where something was measured, and what disturbed it."""
    machine = report["machine"]
    versions = ", ".join(f"{n} {machine['versions'][n]}" for n in ("onnxruntime", "numpy"))
    said = f"{machine['cpu']}, {machine['cores']} cores, {versions}, provider {report['provider']}."
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
            layer["macs"],
            layer["macs_new"],
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
    rows: list[tuple[object, ...]] = [
        (
            row["name"],
            f"{row['mean_ms']:.2f} ± {row['sd_ms']:.2f}",
            f"{100 * row['share']:.2f}",
            "" if row["gflops"] is None else f"{row['gflops']:.1f}",
        )
        for row in model["rows"]
    ]
    rows.append(("total", f"{model['total_mean_ms']:.2f} ± {model['total_sd_ms']:.2f}", "", ""))
    said = (
        f"Batch {report['batch']}, {report['runs']} runs, {report['threads']} threads. "
        f"Attributed: {100 * model['attributed']:.2f} %; sum over the wall clock: "
        f"{model['sum_over_wall']:.3f}."
    )
    columns = ("layer", "ms, mean ± SD", "share, %", "GFLOP/s")
    return [*table(columns, rows), said, *on_machine(report, report["noise"])]


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


def write_int8(data: dict[str, Any]) -> list[str]:
    return [
        line for name, report in data.items() for line in (f"`{name}`", "", *bench_table(report))
    ]


PARTS = {
    "main": Part(
        "VGG-16, the default plan",
        (
            "onnx-lowrank compress vgg16.onnx -o small.onnx " + " ".join(VGG_SHAPE),
            f"onnx-lowrank bench vgg16.onnx small.onnx {' '.join(VGG_SHAPE)} --threads 1 "
            "--seconds 20",
        ),
        run_main,
        write_main,
    ),
    "table1": Part(
        "Where the time goes: zfnet512, batch 128, as Table 1 of Denton et al. 2014",
        ("onnx-lowrank profile zfnet512.onnx --batch 128 --runs 8 --threads 1",),
        run_table1,
        write_table1,
    ),
    "itself": Part(
        "A model against itself: squeezenet",
        (f"onnx-lowrank bench M M --threads 1 --seconds 2 --seed S  # S = 0 to {TRIALS - 1}",),
        run_itself,
        write_itself,
    ),
    "planner": Part(
        "The planner: mnist, at most one point of accuracy",
        (
            f"onnx-lowrank compress mnist.onnx -o small.onnx --data test.npz {' '.join(MNIST)} "
            "--max-drop 1 --threads 1 --keep-anyway",
        ),
        run_planner,
        write_planner,
    ),
    "int8": Part(
        "Against onnxruntime's int8",
        ("onnx-lowrank bench NETWORK --int8 --threads 1 --seconds 5",),
        run_int8,
        write_int8,
    ),
}


def page(folder: Path) -> str:
    """Return the page of the runs in a folder; those that are missing are named."""
    lines = [
        "# Results",
        "",
        "Made by `python models/results.py write` from the runs in `results/`.",
    ]
    for name, part in PARTS.items():
        path = folder / f"{name}.json"
        lines += ["", f"## {part.title}", "", "```sh", *part.commands, "```", ""]
        if path.exists():
            lines += part.write(json.loads(path.read_text(encoding="utf-8")))
        else:
            lines.append(f"Not run yet: `python models/results.py run {name}`.")
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run").add_argument("name", choices=PARTS)
    commands.add_parser("write")
    arguments = parser.parse_args()
    if arguments.command == "run":
        FOLDER.mkdir(exist_ok=True)
        data = PARTS[arguments.name].run()
        write_text(FOLDER / f"{arguments.name}.json", json.dumps(data, indent=1) + "\n")
    else:
        write_text(PAGE, page(FOLDER))
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except OnnxLowRankError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
