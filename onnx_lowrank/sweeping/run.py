"""`sweep`: every point of a grid fitted and measured, over processes, and kept as it is found."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shutil import rmtree

import onnx

from onnx_lowrank.calibrate import Survey, calibrate, statistics_keys
from onnx_lowrank.data import Dataset
from onnx_lowrank.errors import DataError, OutputError, PlanError, suggest
from onnx_lowrank.graph.check import check_model
from onnx_lowrank.graph.io import load_model, save_model, write_text
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.metrics.moments import LayerStatistics
from onnx_lowrank.passes.base import PassManager
from onnx_lowrank.passes.fold_batchnorm import FoldBatchNormPass
from onnx_lowrank.passes.fold_constants import FoldConstantsPass
from onnx_lowrank.passes.normalize_conv import NormalizeConvPass
from onnx_lowrank.sweeping.evaluate import Setting
from onnx_lowrank.sweeping.grid import Point, Skipped, expand_specs, make_grid, select_layers
from onnx_lowrank.sweeping.journal import Journal
from onnx_lowrank.sweeping.parallel import evaluate_all, threads_per_job
from onnx_lowrank.sweeping.result import SweepReport
from onnx_lowrank.sweeping.samples import SweepData, look

METRICS = ("frobenius", "covariance")
Progress = Callable[[str, int, int], None]

FORMAT = 1  # of the arithmetic behind a point; part of its key


def sweep(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    output: str | os.PathLike[str],
    data: SweepData,
    *,
    schemes: Sequence[str],
    layers: Sequence[str] = ("*",),
    metrics: Sequence[str] = ("frobenius",),
    network: bool = False,
    jobs: int = 1,
    seed: int = 0,
    progress: Progress = lambda step, done, total: None,
) -> SweepReport:
    """Fit layers with a grid of schemes, ranks and metrics, and measure each on held-out data.

    Each point replaces one layer alone. It is written to ``points.jsonl`` in `output` as soon as it
    is found: a sweep that is started again, whether it was killed or asks for more points, skips
    those that are there for the same model, data and settings. In the end ``sweep.json`` and
    ``sweep.csv`` hold all points of the grid.

    Parameters
    ----------
    model : path, bytes or ModelProto
        The model; not changed.
    output : path
        Folder of the results, made if it is missing.
    data : SweepData
        The samples.
    schemes : sequence of str
        Specifications, whose values may be alternatives: ``"mono:C=4/6/8"``.
    layers : sequence of str
        Names or globs.
    metrics : sequence of str
        Of `METRICS`.
    network : bool
        Whether to run the whole network on the held-out data too, for every point.
    jobs : int
        Number of processes; -1 for one on each core.
    seed : int
        Fixes every random choice: the numbers do not depend on `jobs`.
    progress : callable
        Called with a sentence, the number of steps done, and their total.

    Raises
    ------
    ModelError, PlanError, SchemeError, DataError, OutputError
        If an input is at fault; the message names the remedy.
    """
    if jobs < 1 and jobs != -1:
        raise DataError(f"the number of jobs is {jobs}; give 1 or more, or -1 for all cores")
    metrics = _check_metrics(metrics, calibrated=data.calibration is not None)
    specs = expand_specs(schemes)
    if not specs:
        raise PlanError("no scheme is given; choose one or more with --scheme")
    original = load_model(model)
    check_model(original)
    normalised = _normalise(original)
    selected = [layer.name for layer in select_layers(find_layers(original), layers)]
    held_out, calibration = data.open(original, seed)
    folder = _make_folder(output)

    progress("looking at the data", 0, 1)
    surveys = look(held_out, calibration if _takes_data(metrics) else None)
    found = {layer.name: layer for layer in find_layers(normalised, input_shapes=surveys[0].shapes)}
    missing = tuple(
        Skipped(name, None, "it is folded away before the fits")
        for name in selected
        if name not in found
    )
    points, skipped = make_grid([found[n] for n in selected if n in found], specs, metrics)
    if not points:
        reasons = "; ".join(f"{s.layer}: {s.reason}" for s in (*missing, *skipped)[:3])
        raise PlanError(f"the grid is empty ({reasons}); choose other layers or schemes")

    wanted = list(dict.fromkeys(point.layer for point in points))
    entries = [statistics_keys(normalised, survey, wanted, seed=seed) for survey in surveys]
    journal = Journal(folder / "points.jsonl")
    keys = {
        point: _key(point, entries, seed, surveys[0].labels if network else None)
        for point in points
    }
    left = [point for point in points if keys[point] not in journal]
    if left:
        work = folder / "work"
        remaining = list(dict.fromkeys(point.layer for point in left))
        statistics = [
            _statistics(normalised, dataset, remaining, survey, work, seed, progress)
            for dataset, survey in zip((held_out, calibration), surveys, strict=False)
            if dataset is not None
        ]
        save_model(normalised, work / "model.onnx")
        setting = Setting(
            model=work / "model.onnx",
            held_out=statistics[0],
            calibration=statistics[1] if len(statistics) > 1 else {},
            filters=folder / "filters",
            seed=seed,
            network=held_out if network else None,
            threads=threads_per_job(jobs),
        )
        done = len(points) - len(left)
        for key, result in evaluate_all(setting, [(point, keys[point]) for point in left], jobs):
            journal.add(key, result)
            done += 1
            progress(f"{result.layer} as {result.scheme}", done, len(points))
        rmtree(work, ignore_errors=True)
    results = {point: journal[keys[point]] for point in points}
    filters = {results[point]: folder / "filters" / f"{keys[point]}.npz" for point in points}
    report = SweepReport(
        model=_name(model, original),
        settings={
            "layers": list(layers),
            "schemes": [str(spec) for spec in specs],
            "metrics": list(metrics),
            "network": network,
            "calibration_images": surveys[1].images if len(surveys) > 1 else None,
            "seed": seed,
        },
        held_out_images=surveys[0].images,
        points=tuple(results.values()),
        skipped=(*missing, *skipped),
        unreadable=(*held_out.skipped, *(calibration.skipped if calibration else ())),
        reused=len(points) - len(left),
        filters={result: file for result, file in filters.items() if file.exists()},
    )
    write_text(folder / "sweep.json", json.dumps(report.to_dict(), indent=2) + "\n")
    write_text(folder / "sweep.csv", report.to_csv())
    return report


def _check_metrics(metrics: Sequence[str], *, calibrated: bool) -> tuple[str, ...]:
    for metric in metrics:
        if metric not in METRICS:
            hint = suggest(metric, METRICS) or f"; choose from {', '.join(METRICS)}"
            raise PlanError(f"there is no metric '{metric}'{hint}")
    if _takes_data(metrics) and not calibrated:
        raise DataError("a metric of the data needs calibration samples; give --calibrate")
    return tuple(dict.fromkeys(metrics)) or METRICS[:1]


def _takes_data(metrics: Sequence[str]) -> bool:
    return any(metric != "frobenius" for metric in metrics)


def _normalise(original: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with constants and normalisations folded, as `compress` fits it."""
    model = onnx.ModelProto()
    model.CopyFrom(original)
    # Of all layers, not of the chosen ones: points stay valid when layers are added to the sweep.
    names = frozenset(layer.name for layer in find_layers(original))
    PassManager([FoldConstantsPass(names), FoldBatchNormPass(names), NormalizeConvPass(names)]).run(
        model
    )
    return model


def _make_folder(output: str | os.PathLike[str]) -> Path:
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {folder}: {error.strerror}; choose another"
        ) from None
    if not os.access(folder, os.W_OK):
        raise OutputError(f"the folder {folder} cannot be written to; choose another")
    return folder


def _key(
    point: Point, entries: Sequence[Mapping[str, str]], seed: int, labels: bytes | None
) -> str:
    """Return a hash of all that a point depends on.

    The entries stand for model, data and the rule by which positions are chosen; a metric without
    data does not depend on those for calibration.
    """
    seen = entries if _takes_data([point.metric]) else entries[:1]
    parts = [
        str(FORMAT),
        point.layer,
        point.scheme.spec,
        point.metric,
        str(seed),
        "" if labels is None else labels.hex(),
        *(entry[point.layer] for entry in seen),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _statistics(
    model: onnx.ModelProto,
    dataset: Dataset,
    layers: Sequence[str],
    survey: Survey,
    work: Path,
    seed: int,
    progress: Progress,
) -> Mapping[str, LayerStatistics]:
    return calibrate(
        model, dataset, layers, cache_dir=work, seed=seed, survey=survey, progress=progress
    )


def _name(model: str | os.PathLike[str] | bytes | onnx.ModelProto, proto: onnx.ModelProto) -> str:
    if isinstance(model, str | os.PathLike):
        return Path(model).name
    return proto.graph.name or "model"
