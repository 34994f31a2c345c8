"""Real runs and the page on them: ``python models/results.py run NAME``, then ``write``.

``run`` carries out the command of one section and keeps its JSON in models/results/NAME.json;
``write`` makes models/RESULTS.md of the files that are there. No figure is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import constants
import crops
import datasets
import fetch
import result_tables
import search_seconds
import searched
import seed_tables
import tuned_tables
from command import olr

from onnx_lowrank.errors import OnnxLowRankError
from onnx_lowrank.files import write_text

FOLDER = Path(__file__).with_name("results")
PAGE = Path(__file__).with_name("RESULTS.md")
TRIALS = 20
VGG_SHAPE = ("--input-shape", "input=1,240,240,3")
# The main job of the README.
VGG_PLAN = (
    *("--layer", "*block1_conv1*=mono:C=8", "--layer", "*block1_conv2*=keep"),
    *("--layer", "*block*=bicluster-svd:G=2,H=2,K1=50%,K2=50%", "--min-sqnr", "10"),
)
VGG_SEARCH = ("--preprocess", "unit", "--threads", "1", "--jobs", "2")
# Latencies at which Tucker-2 with one ratio for all layers kept 0.925 and 0.867 agreement, and two
# bounds on the loss.
VGG_BUDGETS: dict[str, Sequence[object]] = {
    "2.63 times as fast": ("--min-speedup", 2.63),
    "3.73 times as fast": ("--min-speedup", 3.73),
    "1 point of agreement": ("--max-drop", 1),
    "30 dB": ("--min-sqnr", 30),
}
MNIST = ("--preprocess", "unit:mean=0.1307,std=0.3081")


@dataclass(frozen=True)
class Part:
    """One section: its title, the commands as they are told, how they run, and its tables."""

    title: str
    commands: tuple[str, ...]
    run: Callable[[], dict[str, Any]]
    write: Callable[[dict[str, Any]], list[str]]


def run_main(
    *,
    network: Path | None = None,
    options: Sequence[object] = (*VGG_PLAN, *VGG_SHAPE),
    repeats: int = 8,
    seconds: float = 10,
) -> dict[str, Any]:
    network = network or fetch.network("vgg16")
    shape = VGG_SHAPE if VGG_SHAPE[0] in options else ()
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / f"{network.stem}-lowrank.onnx"
        compressed = olr("compress", network, "-o", small, *options)
        timed = ("--threads", 1, "--repeats", repeats, "--seconds", seconds)
        bench = olr("bench", network, small, *shape, *timed)
    return {"compress": compressed, "bench": bench}


def run_table1(*, network: Path | None = None, batch: int = 128, runs: int = 8) -> dict[str, Any]:
    network = network or fetch.network("zfnet512")
    return {"profile": olr("profile", network, "--batch", batch, "--runs", runs, "--threads", 1)}


def run_tables(*, limit: int = 2000, calibration_limit: int = 2000) -> dict[str, Any]:
    import train  # takes torch

    network = train.trained("zf")
    schemes = [
        option
        for table in seed_tables.TABLES.values()
        for row in table
        for option in ("--scheme", row.spec)
    ]
    metrics = [option for name in seed_tables.METRICS for option in ("--metric", name)]
    with tempfile.TemporaryDirectory() as folder:
        held_out = train.write_data("zf", "test", Path(folder) / "test.npz")
        seen = train.write_data("zf", "calibration", Path(folder) / "calibration.npz")
        options = ("--data", held_out, "--limit", limit, "--calibrate", seen, "--network")
        options = (*options, "--calibrate-limit", calibration_limit)
        where = ("-o", Path(folder) / "sweep")
        return {"sweep": olr("sweep", network, *schemes, *metrics, *options, *where)}


def run_tuned() -> dict[str, Any]:
    import tuning  # takes torch

    with tuning.coloured() as bench:
        return tuning.tune_layers(bench)


def run_cascades() -> dict[str, Any]:
    import tuning  # takes torch

    with tuning.coloured() as bench:
        return tuning.run_cascades(bench)


def run_itself(
    *, network: Path | None = None, trials: int = TRIALS, seconds: float = 2
) -> dict[str, Any]:
    network = network or fetch.network("squeezenet")
    options = ("--threads", 1, "--seconds", seconds)
    return {
        "trials": [olr("bench", network, network, *options, "--seed", i) for i in range(trials)]
    }


def run_planner() -> dict[str, Any]:
    data = datasets.dataset("mnist5k") / "test.npz"
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "mnist-lowrank.onnx"
        options = ("--data", data, *MNIST, "--max-drop", 1, "--threads", 1, "--keep-anyway")
        return {"search": olr("compress", fetch.network("mnist"), "-o", small, *options)}


def run_vgg16(*, budgets: Mapping[str, Sequence[object]] = VGG_BUDGETS) -> dict[str, Any]:
    network = fetch.network("vgg16")
    photographs = datasets.dataset("photographs")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        squares = (
            (photographs / "calibration", "calibration", 4),
            (photographs / "evaluation", "evaluation", 12),
            (datasets.dataset("wallpapers"), "wallpapers", 8),
        )
        for seed, (images, name, count) in enumerate(squares):
            crops.write_crops(images, folder / name, per_image=count, size=240, seed=seed)
        data = ("--calibrate", folder / "calibration", "--data", folder / "evaluation")
        elsewhere = (*VGG_SHAPE, "--preprocess", "unit", "--data", folder / "wallpapers")
        small = folder / "vgg16-lowrank.onnx"
        found = {}
        for name, budget in budgets.items():
            options = (*VGG_SHAPE, *VGG_SEARCH, *data, *budget, "--force", "--keep-anyway")
            found[name] = {
                "search": olr("compress", network, "-o", small, *options),
                "elsewhere": olr("verify", network, small, *elsewhere),
            }
    return found


def run_int8(
    *, names: Sequence[str] = ("squeezenet", "mnist"), seconds: float = 5
) -> dict[str, Any]:
    options = ("--int8", "--threads", 1, "--seconds", seconds)
    return {name: olr("bench", fetch.network(name), *options) for name in names}


PARTS = {
    "main": Part(
        "VGG-16, the main job of the README",
        (
            f"onnx-lowrank compress vgg16.onnx -o small.onnx {shlex.join((*VGG_SHAPE, *VGG_PLAN))}",
            f"onnx-lowrank bench vgg16.onnx small.onnx {' '.join(VGG_SHAPE)} --threads 1 "
            "--repeats 8",
        ),
        run_main,
        result_tables.write_main,
    ),
    "table1": Part(
        "Where the time goes: zfnet512, batch 128, as Table 1 of Denton et al. 2014",
        ("onnx-lowrank profile zfnet512.onnx --batch 128 --runs 8 --threads 1",),
        run_table1,
        result_tables.write_table1,
    ),
    "tables": Part(
        "What single layers lose, as Tables 2 to 4 of Denton et al. 2014",
        (
            "python models/train.py data zf --split test -o test.npz",
            "python models/train.py data zf --split calibration -o calibration.npz",
            'onnx-lowrank sweep "$(python models/train.py zf)" --data test.npz --calibrate '
            "calibration.npz --network -o out --metric frobenius --metric covariance --metric "
            "mahalanobis --scheme ...  # each of ours below",
        ),
        run_tables,
        result_tables.write_tables,
    ),
    "tuned": Part(
        "What single layers lose after fine-tuning, as Tables 2 to 4",
        (
            "onnx-lowrank compress zf.onnx -o small.onnx --layer LAYER=SCHEME --calibrate "
            "calibration.npz --calibrate-limit 1000  # each of ours below",
            "onnx-lowrank finetune zf.onnx small.onnx -o tuned.onnx --data train.npz --limit 20000 "
            "--val validation.npz --train above --loss labels --epochs 1",
        ),
        run_tuned,
        tuned_tables.write_tuned,
    ),
    "cascades": Part(
        "Several layers, as Table 5 of Denton et al. 2014",
        (
            "onnx-lowrank cascade zf.onnx -o tuned.onnx --layer LAYER=SCHEME ... --data train.npz "
            "--limit 20000 --val validation.npz --statistics-limit 1000  # each of ours below",
        ),
        run_cascades,
        tuned_tables.write_cascades,
    ),
    "itself": Part(
        "A model against itself: squeezenet",
        (f"onnx-lowrank bench M M --threads 1 --seconds 2 --seed S  # S = 0 to {TRIALS - 1}",),
        run_itself,
        result_tables.write_itself,
    ),
    "planner": Part(
        "The planner: mnist, at most one point of accuracy",
        (
            f"onnx-lowrank compress mnist.onnx -o small.onnx --data test.npz {' '.join(MNIST)} "
            "--max-drop 1 --threads 1 --keep-anyway",
        ),
        run_planner,
        result_tables.write_planner,
    ),
    "vgg16": Part(
        "The planner: VGG-16 without training, one thread, batch 1",
        (
            "python models/crops.py P/calibration -o calibration --per-image 4 --seed 0",
            "python models/crops.py P/evaluation -o evaluation --per-image 12 --seed 1",
            "python models/crops.py W -o wallpapers --per-image 8 --seed 2",
            f"onnx-lowrank compress vgg16.onnx -o small.onnx {' '.join(VGG_SHAPE)} "
            f"{' '.join(VGG_SEARCH)} --calibrate calibration --data evaluation --min-speedup 2.63",
            f"onnx-lowrank verify vgg16.onnx small.onnx {' '.join(VGG_SHAPE)} --preprocess unit "
            "--data wallpapers",
        ),
        run_vgg16,
        result_tables.write_vgg16,
    ),
    "uniform": Part(
        "VGG-16 by one scheme in all layers",
        (
            f"onnx-lowrank compress vgg16.onnx -o SMALL {' '.join(VGG_SHAPE)} --preprocess unit "
            "--calibrate calibration --data evaluation --metric covariance --min-sqnr 0 "
            "--layer '*block1_conv1*=keep' --layer '*dense*=keep' --layer '*block*=SCHEME:macs=S'",
            f"onnx-lowrank bench vgg16.onnx SMALL ... {' '.join(VGG_SHAPE)} --threads 1",
        ),
        searched.run_uniform,
        searched.write_uniform,
    ),
    "networks": Part(
        "The planner: all trained networks, among standard ops and among portable nodes",
        (
            "onnx-lowrank compress NETWORK -o small.onnx --calibrate search --data verdict BUDGET "
            "--threads 1 --jobs 2 --lowering standard|portable",
        ),
        searched.run_networks,
        searched.write_networks,
    ),
    "search_seconds": Part(
        "How long a search takes",
        ("python models/results.py run search_seconds  # each from an empty cache",),
        search_seconds.run_search_seconds,
        search_seconds.write_search_seconds,
    ),
    "constants": Part(
        "What the constants of a search are worth: mnist, at most one point of accuracy",
        ("python models/results.py run constants  # the settings of the API's compress_to_budget",),
        constants.run_constants,
        constants.write_constants,
    ),
    "int8": Part(
        "Against onnxruntime's int8",
        ("onnx-lowrank bench NETWORK --int8 --threads 1 --seconds 5",),
        run_int8,
        result_tables.write_int8,
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
