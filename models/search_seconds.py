"""How long searches take, step by step, from an empty cache, and a second budget after it."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fetch
import result_tables
import searched
from command import olr
from seed_tables import table

STEPS = (
    *("timing layers", "statistics", "fits", "probes", "whole models", "timing whole models"),
    *("refits", "verdict"),
)


@dataclass(frozen=True)
class Timed:
    """A network whose search is timed.

    Attributes
    ----------
    network : callable
        Returns its path.
    data : callable
        Writes samples for the search and for the verdict, as of `searched.Case`.
    options : sequence
        How samples become inputs.
    budgets : sequence
        The budget, and a second one.
    """

    network: Callable[[], Path]
    data: Callable[[Path], tuple[Path, Path]]
    options: Sequence[object]
    budgets: tuple[Sequence[object], Sequence[object]]


_SQUARES = searched.squares(224, (2, 4))
CASES: Mapping[str, Timed] = {
    "mnist": Timed(
        lambda: fetch.network("mnist"),
        searched.mnist,
        ("--preprocess", "unit:mean=0.1307,std=0.3081"),
        (("--max-drop", 1), ("--max-drop", 0.5)),
    ),
    "VGG-16": Timed(
        lambda: fetch.network("vgg16"),
        searched.VGG_SQUARES,
        ("--preprocess", "unit", "--input-shape", "input=1,240,240,3"),
        (("--min-speedup", 2.63), ("--min-speedup", 2.2)),
    ),
    "ResNet-50, random weights": Timed(
        lambda: fetch.network("resnet50"),
        _SQUARES,
        ("--preprocess", "imagenet"),
        (("--min-speedup", 1.3), ("--min-speedup", 1.2)),
    ),
    "Inception v2, random weights": Timed(
        lambda: fetch.network("inception_v2"),
        _SQUARES,
        ("--preprocess", "imagenet"),
        (("--min-speedup", 1.3), ("--min-speedup", 1.2)),
    ),
}


def run_search_seconds(*, names: Sequence[str] = tuple(CASES)) -> dict[str, Any]:
    """Estimate, search from an empty cache, and search once more within another budget."""
    found: dict[str, Any] = {}
    before = os.environ.get("ONNX_LOWRANK_CACHE")
    for name in names:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            seen, unseen = case.data(folder)
            network = case.network()
            try:
                os.environ["ONNX_LOWRANK_CACHE"] = str(folder / "known")
                estimate = ("compress", network, "--estimate", "--data", seen, *case.options)
                reports = [_timed(*estimate, "--threads", 1) for _ in range(2)]
                os.environ["ONNX_LOWRANK_CACHE"] = str(folder / "cache")
                for budget in case.budgets:
                    reports.append(
                        _timed(
                            *("compress", network, "-o", folder / f"{len(reports)}.onnx"),
                            *("--calibrate", seen, "--data", unseen, *case.options, *budget),
                            *searched.SEARCH,
                        )
                    )
            finally:
                if before is None:
                    del os.environ["ONNX_LOWRANK_CACHE"]
                else:
                    os.environ["ONNX_LOWRANK_CACHE"] = before
        found[name] = {"runs": reports, "budgets": [" ".join(map(str, b)) for b in case.budgets]}
    return found


def _timed(*arguments: object) -> dict[str, Any]:
    """Run a command; return what it printed, its seconds, and the largest process so far."""
    start = os.times().elapsed
    report = olr(*arguments)
    seconds = os.times().elapsed - start
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"report": report, "seconds": seconds, "largest_mb": largest}


def write_search_seconds(data: dict[str, Any]) -> list[str]:
    """Return the section of `run_search_seconds`."""
    rows, steps = [], []
    for name, found in data.items():
        first, again, searched_first, searched_again = found["runs"]
        rows.append((name, "--estimate, the first on a machine", f"{first['seconds']:.1f}", "", ""))
        rows.append((name, "--estimate", f"{again['seconds']:.1f}", _predicted(again), ""))
        for run, budget in zip((searched_first, searched_again), found["budgets"], strict=True):
            report = run["report"]
            ratio = f"{report['search']['latency']['ratio']:.3f}"
            passed = "within it" if report["passed"] else "; ".join(report["failures"])
            rows.append((name, budget, f"{run['seconds']:.1f}", ratio, passed))
            spent = report["seconds"]
            steps.append((name, budget, *(f"{spent.get(step, 0.0):.1f}" for step in STEPS)))
    largest = max(run["largest_mb"] for found in data.values() for run in found["runs"])
    report = found["runs"][-1]["report"]
    return [
        "Seconds of whole commands, the first search from an empty cache, the second budget after "
        "it; time of the model over the original's, one thread, batch 1, two jobs for the fits. "
        f"The largest process took {largest:.0f} MB.",
        "",
        *table(("network", "command or budget", "seconds", "time", "verdict"), rows),
        "",
        *table(("network", "budget", *STEPS), steps),
        *result_tables.on_machine(report),
    ]


def _predicted(run: dict[str, Any]) -> str:
    points = run["report"]["frontier"]
    return ", ".join(f"{p['ratio']:.2f} at {p['sqnr_db']:.0f} dB" for p in points[:5])
