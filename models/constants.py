"""What the constants of a search are worth: each at other values, on a network searched anew.

Statistics and fits are shared; latencies are measured anew by every search.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fetch
import result_tables
import searched
from seed_tables import table

from onnx_lowrank import Budget, compress_to_budget
from onnx_lowrank.documents import measured
from onnx_lowrank.search.settings import SETTINGS, SearchSettings

# Values tried of each constant, lower and higher than it.
OTHERS: dict[str, tuple[float, float]] = {
    "positions": (128, 512),
    "small_patch": (0, 4608),
    "most_colours": (4, 64),
    "least_share": (0.0025, 0.01),
    "least_saving": (0.0, 0.05),
    "least_gain": (0.01, 0.06),
    "model_seconds": (0.25, 4.0),
    "rough_rounds": (1, 4),
    "part_rounds": (2, 8),
    "most_timings": (1, 6),
    "apart": (4.0, 16.0),
    "narrow": (0.025, 0.1),
    "most_repeats": (8, 48),
    "clearly_slower": (1.05, 1.3),
    "probe_error": (0.075, 0.3),
    "probe_samples": (2, 16),
    "first_damage": (0.002, 0.05),
    "close": (1.04, 1.16),
    "most_evaluations": (5, 20),
    "most_refits": (1, 6),
    "most_corrections": (2, 8),
    "off": (0.05, 0.2),
    "fast_enough": (1.02, 1.08),
    "least_probability": (0.8, 0.95),
    "refit_probability": (0.8, 0.95),
}
SHARED = ("statistics", "fits", "refits")  # steps that all searches share


def run_constants(
    *,
    network: Path | None = None,
    others: Mapping[str, Sequence[float]] = OTHERS,
    settings: SearchSettings = SETTINGS,
) -> dict[str, Any]:
    """Search mnist with each constant at other values, and as it is before and after them."""
    network = network or fetch.network("mnist")
    tried = [replace(settings, **{n: v}) for n, values in others.items() for v in values]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        search, verdict = searched.mnist(folder)

        def report(settings: SearchSettings, cache: Path) -> dict[str, Any]:
            found = compress_to_budget(
                network,
                Budget(max_drop=1),
                calibration=search,
                data=verdict,
                preprocess="unit:mean=0.1307,std=0.3081",
                threads=1,
                cache_dir=cache,
                settings=settings,
            )
            return measured("search", found.to_dict(), provider="cpu", threads=1)

        report(settings, folder / "kept")
        rows = []
        for number, each in enumerate((settings, *tried, settings)):
            cache = folder / f"{number}"
            # Arrays are statistics and fits; latencies and evaluations are JSON.
            unshared = shutil.ignore_patterns("*.json")
            shutil.copytree(folder / "kept", cache, ignore=unshared)
            numbers = {name: getattr(each, name) for name in others}
            rows.append({"settings": numbers, "report": report(each, cache)})
            shutil.rmtree(cache)
    return {"rows": rows}


def write_constants(data: dict[str, Any]) -> list[str]:
    """Return the section of `run_constants`."""
    first, *others, last = data["rows"]
    usual = first["settings"]
    rows: list[tuple[object, ...]] = [("as they are", "", *_figures(first["report"]))]
    for row in others:
        name = next(name for name, value in row["settings"].items() if value != usual[name])
        values = f"{row['settings'][name]:g} instead of {usual[name]:g}"
        rows.append((f"`{name}`", values, *_figures(row["report"])))
    rows.append(("as they are, once more", "", *_figures(last["report"])))
    columns = ("constant", "value", "time (99 % interval)", "predicted", "points lost")
    said = "mnist, one point of accuracy: time over the original's, one thread, batch 1; points "
    said += "lost in the verdict; seconds of the search without statistics and fits, which all "
    said += "searches share. The first and the last row show what two equal searches differ by."
    lines = table((*columns, "models measured", "seconds"), rows)
    return [said, "", *lines, *result_tables.on_machine(first["report"])]


def _figures(report: dict[str, Any]) -> tuple[object, ...]:
    found, seconds, verdict = report["search"], report["seconds"], report["verification"]
    timed = found["latency"]
    spent = seconds["total"] - sum(seconds.get(name, 0.0) for name in SHARED)
    return (
        f"{timed['ratio']:.3f} ({timed['low']:.3f} to {timed['high']:.3f})",
        f"{found['predicted_ratio']:.3f}",
        f"{verdict['accuracy']['drop_points']:.2f}" if verdict else "",
        len(found["explored"]),
        f"{spent:.1f}",
    )
