"""Searches within a budget on all trained networks, and plans of one scheme beside VGG-16's."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crops
import datasets
import fetch
import held_out
import numpy as np
import result_tables
from command import olr
from seed_tables import table

import onnx_lowrank

SEARCH = ("--threads", 1, "--jobs", 2)
# One scheme for all layers of VGG-16 but the first, with one share of their multiply-adds.
SCHEMES = ("tucker2", "cp", "spatial", "channel")
SHARES = (0.42, 0.3, 0.22, 0.16)
VGG_SHAPES = {"input": (1, 240, 240, 3)}
SPEEDUPS = (2.63, 3.73)  # those of the searches


@dataclass(frozen=True)
class Case:
    """A network with a budget.

    Attributes
    ----------
    network : callable
        Returns its path.
    data : callable
        Writes samples for the search and for the verdict, none in both, into a folder, and returns
        both sources.
    options : sequence
        The budget, and how samples become inputs.
    told : str
        The budget in words.
    lowerings : sequence of str
        Each gets a search.
    """

    network: Callable[[], Path]
    data: Callable[[Path], tuple[Path, Path]]
    options: Sequence[object]
    told: str
    lowerings: Sequence[str] = ("standard", "portable")


def mnist(folder: Path) -> tuple[Path, Path]:
    """Write 1500 and 3500 labelled digits."""
    with np.load(datasets.dataset("mnist5k") / "test.npz") as arrays:
        order = np.random.default_rng(0).permutation(len(arrays["labels"]))
        parts = {"search": order[:1500], "verdict": order[1500:]}
        for name, part in parts.items():
            chosen = {key: arrays[key][part] for key in ("images", "labels")}
            np.savez(folder / f"{name}.npz", **chosen)
    return folder / "search.npz", folder / "verdict.npz"


def fashion(name: str) -> Callable[[Path], tuple[Path, Path]]:
    """Return what writes the calibration and the test images of a network of `train.py`."""

    def write(folder: Path) -> tuple[Path, Path]:
        import train  # takes torch

        return (
            train.write_data(name, "calibration", folder / "search.npz"),
            train.write_data(name, "test", folder / "verdict.npz"),
        )

    return write


def trained(name: str) -> Callable[[], Path]:
    """Return what trains a network of `train.py`, or finds it trained."""

    def find() -> Path:
        import train  # takes torch

        return train.trained(name)

    return find


def tiles(folder: Path) -> tuple[Path, Path]:
    """Write parts of photographs at 32 x 32; those of a photograph are in one of both."""
    for part, name in (("calibration", "search"), ("evaluation", "verdict")):
        images = [feeds["image"] for feeds in held_out.tiles(part)()]
        np.savez(folder / f"{name}.npz", image=np.concatenate(images))
    return folder / "search.npz", folder / "verdict.npz"


def squares(size: int, counts: tuple[int, int]) -> Callable[[Path], tuple[Path, Path]]:
    """Return what writes random square crops of photographs, so many of each."""

    def write(folder: Path) -> tuple[Path, Path]:
        for seed, (part, count) in enumerate(
            zip(("calibration", "evaluation"), counts, strict=True)
        ):
            photographs = datasets.dataset("photographs") / part
            crops.write_crops(photographs, folder / part, per_image=count, size=size, seed=seed)
        return folder / "calibration", folder / "evaluation"

    return write


def scenes(folder: Path) -> tuple[Path, Path]:
    """Write squares for a detector of text, of more photographs for the search.

    Most photographs have none: few carry all of its signal and error, and 17 do not tell of others.
    """
    search, verdict = squares(160, (4, 4))(folder)
    crops.write_crops(datasets.dataset("wallpapers"), search, per_image=4, size=160, seed=2)
    return search, verdict


VGG_SQUARES = squares(240, (4, 12))
CASES = {
    "mnist": Case(
        lambda: fetch.network("mnist"),
        mnist,
        ("--preprocess", "unit:mean=0.1307,std=0.3081", "--max-drop", 1),
        "1 point of accuracy",
    ),
    **{
        f"fashion-{name}": Case(
            trained(name),
            fashion(name),
            ("--calibrate-limit", 2000, "--max-drop", 1),
            "1 point of accuracy",
        )
        for name in ("zf", "vgg")
    },
    "cifar10": Case(
        lambda: fetch.network("cifar10"), tiles, ("--max-drop", 2), "2 points of agreement"
    ),
    "craft": Case(
        lambda: fetch.network("craft"),
        scenes,
        ("--preprocess", "imagenet", "--input-shape", "image=1,3,160,160", "--min-sqnr", 20),
        "20 dB",
        ("standard",),  # a search takes half an hour
    ),
    "squeezenet, random weights": Case(
        lambda: fetch.network("squeezenet"),
        squares(224, (2, 4)),
        ("--preprocess", "imagenet", "--min-sqnr", 30),
        "30 dB",
    ),
}


def run_networks(*, names: Sequence[str] = tuple(CASES)) -> dict[str, Any]:
    """Search among standard ops, and among portable nodes, and return the reports."""
    found: dict[str, Any] = {}
    for name in names:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            search, verdict = case.data(Path(folder))
            for lowering in case.lowerings:
                found[f"{name}, {lowering}"] = {
                    "told": case.told,
                    "report": olr(
                        *("compress", case.network(), "-o", Path(folder) / f"{lowering}.onnx"),
                        *("--calibrate", search, "--data", verdict, *case.options, *SEARCH),
                        *("--lowering", lowering),
                    ),
                }
    return found


def write_networks(data: dict[str, Any]) -> list[str]:
    """Return the section of `run_networks`."""
    rows: list[tuple[object, ...]] = []
    for name, found in data.items():
        report = found["report"]
        timed, verdict = report["search"]["latency"], report["verification"]
        kept = "kept as it was: " + "; ".join(report["failures"])
        rows.append(
            (
                name,
                found["told"],
                f"{timed['ratio']:.3f} ({timed['low']:.3f} to {timed['high']:.3f})",
                f"{report['search']['predicted_ratio']:.3f}",
                f"{report['cost']['total']['mac_reduction']:.2f}",
                _lost(verdict, report["expected_drop"]),
                _expected(report["expected_drop"]),
                "within it" if report["passed"] else kept,
            )
        )
    changed = _changed_sides(found["report"]["search"]["explored"] for found in data.values())
    columns = ("network, ops", "budget", "time (99 % interval)", "predicted", "MACs")
    columns = (*columns, "lost on unseen data", "expected", "verdict")
    said = "Time over the original's, one thread, batch 1; MACs times fewer. The verdict is on "
    said += "samples that neither fits nor search saw; expected is what the search foretold of it "
    said += "(95 % interval)."
    machines: dict[str, list[str]] = {}
    for name, found in data.items():
        machines.setdefault(result_tables.on_machine(found["report"])[0], []).append(name)
    where = [
        line
        for machine, names in machines.items()
        for line in (machine if len(machines) == 1 else f"{'; '.join(names)}: {machine}", "")
    ]
    return [said, "", *table(columns, rows), changed, "", *where]


def _changed_sides(searches: Iterable[Sequence[dict[str, Any]]]) -> str:
    """Say how many samples changed sides, over what their margins predict, where ten or more did.

    It is the source of what `onnx_lowrank.search.margins` takes this ratio to be.
    """
    ratios = []
    for explored in searches:
        for margins in filter(None, (each.get("margins") for each in explored)):
            counted = margins["lost"] + margins["gained"]
            if counted >= 10:
                ratios.append(counted / (margins["expected_lost"] + margins["expected_gained"]))
    if not ratios:
        return "No model measured on the way changed the sides of ten samples."
    return (
        f"Samples that changed sides, over those that the margins predict, in {len(ratios)} models "
        f"measured on the way: median {np.median(ratios):.2f}, {min(ratios):.2f} to "
        f"{max(ratios):.2f}."
    )


def _lost(verdict: dict[str, Any] | None, expected: dict[str, Any] | None) -> str:
    if verdict is None:
        return ""  # nothing was replaced
    in_db = expected is not None and expected["quantity"] == "sqnr_db"
    if verdict["accuracy"]:
        return f"{verdict['accuracy']['drop_points']:.2f} points"
    if verdict["agreement"]["top1"] is not None and not in_db:
        return f"{100 * (1 - verdict['agreement']['top1']):.2f} points"
    return f"{min(output['sqnr_db'] for output in verdict['outputs']):.1f} dB"


def _expected(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def run_uniform(
    *,
    network: Path | None = None,
    schemes: Sequence[str] = SCHEMES,
    shares: Sequence[float] = SHARES,
    kept: Sequence[str] = ("*block1_conv1*", "*dense*"),
    layers: str = "*block*",
    data: Callable[[Path], tuple[Path, Path]] = VGG_SQUARES,
    preprocess: str = "unit",
    input_shapes: Mapping[str, tuple[int, ...]] = VGG_SHAPES,
    seconds: float = 3,
) -> dict[str, Any]:
    """Fit plans of one scheme and one share to the covariance, and time all beside the original."""
    network = network or fetch.network("vgg16")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        seen, unseen = data(folder)
        plans, models = {}, []
        for scheme, share in itertools.product(schemes, shares):
            spec = f"{scheme}:macs={share}"
            result = onnx_lowrank.compress(
                network,
                plan=[*(f"{name}=keep" for name in kept), f"{layers}={spec}"],
                calibration=seen,
                data=unseen,
                preprocess=preprocess,
                input_shapes=input_shapes,
                metric="covariance",
                cache_dir=folder / "statistics",  # which all plans share
            )
            assert result.report is not None
            plans[spec] = result.report.to_dict()
            models.append(folder / f"{scheme}-{share}.onnx")
            result.save(models[-1])
        sizes = (f"{name}={','.join(map(str, shape))}" for name, shape in input_shapes.items())
        shapes = [option for size in sizes for option in ("--input-shape", size)]
        bench = olr("bench", network, *models, *shapes, "--threads", 1, "--seconds", seconds)
    return {"plans": plans, "bench": bench}


def write_uniform(data: dict[str, Any]) -> list[str]:
    """Return the section of `run_uniform`."""
    contenders = data["bench"]["settings"][0]["contenders"][1:]
    rows: list[tuple[object, ...]] = []
    curves: dict[str, list[tuple[float, float]]] = {}
    for (spec, report), timed in zip(data["plans"].items(), contenders, strict=True):
        ratio, verdict = timed["ratio"], report["verification"]
        agreement = verdict["agreement"]["top1"]
        curves.setdefault(spec.split(":")[0], []).append((ratio["ratio"], agreement))
        rows.append(
            (
                f"`{spec}`",
                f"{report['cost']['total']['mac_reduction']:.2f}",
                f"{ratio['ratio']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})",
                f"{100 * agreement:.2f} %",
                f"{min(output['sqnr_db'] for output in verdict['outputs']):.1f}",
            )
        )
    lines = table(("all layers as", "MACs", "time", "top-1 agreement", "SQNR, dB"), rows)
    told: list[tuple[object, ...]] = []
    for name, points in curves.items():
        times, agreements = zip(*sorted(points), strict=True)
        told.append((name, *(_between(1 / speed, times, agreements) for speed in SPEEDUPS)))
    columns = ("scheme", *(f"agreement at {1 / speed:.3f} of the time" for speed in SPEEDUPS))
    said = "Between neighbouring rows, in a straight line; empty outside of what was measured."
    noise = data["bench"]["settings"][0]["noise"]
    return [
        *lines,
        said,
        "",
        *table(columns, told),
        *result_tables.on_machine(data["bench"], noise),
    ]


def _between(wanted: float, times: Sequence[float], agreements: Sequence[float]) -> str:
    if not times[0] <= wanted <= times[-1]:
        return ""
    return f"{100 * float(np.interp(wanted, times, agreements)):.2f} %"
