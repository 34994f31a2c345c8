"""`sweep`: every point of a grid fitted and measured, over processes, and kept as it is found."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

import onnx

from onnx_lowrank.cache import key_of
from onnx_lowrank.data import Dataset
from onnx_lowrank.errors import DataError, OutputError, PlanError, suggest
from onnx_lowrank.files import write_text
from onnx_lowrank.fitting.statistics import (
    Sampling,
    StoredStatistics,
    Survey,
    calibrate,
    statistics_keys,
)
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.gate import open_model
from onnx_lowrank.graph.io import save_model
from onnx_lowrank.graph.layers import find_layers, layer_weight
from onnx_lowrank.pipelines.sweeping.evaluate import NEEDS, Setting, save_gradients
from onnx_lowrank.pipelines.sweeping.grid import (
    Point,
    Skipped,
    expand_rules,
    make_grid,
    select_layers,
)
from onnx_lowrank.pipelines.sweeping.journal import Journal
from onnx_lowrank.pipelines.sweeping.parallel import evaluate_all, threads_per_job
from onnx_lowrank.pipelines.sweeping.result import SweepReport
from onnx_lowrank.pipelines.sweeping.samples import SweepData, look
from onnx_lowrank.rewriting.passes.normalize import normalisation
from onnx_lowrank.runtime import Provider, require_provider
from onnx_lowrank.runtime.engines import onnxruntime_provider, open_engine
from onnx_lowrank.training.gradients import layer_gradients
from onnx_lowrank.types import ModelSource, Progress, silent

METRICS = tuple(NEEDS)

FORMAT = 3  # of the arithmetic behind a point; part of its key


def sweep(
    model: ModelSource,
    output: str | os.PathLike[str],
    data: SweepData,
    *,
    schemes: Sequence[str],
    layers: Sequence[str] = ("*",),
    metrics: Sequence[str] = ("frobenius",),
    network: bool = False,
    jobs: int = 1,
    engine: str = "cpu",
    seed: int = 0,
    progress: Progress = silent,
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
        Specifications, whose values may be alternatives: ``"mono:C=4/6/8"``; of some layers only,
        by name or glob: ``"conv1=mono:C=6"``.
    layers : sequence of str
        Names or globs.
    metrics : sequence of str
        Of `METRICS`.
    network : bool
        Whether to run the whole network on the held-out data too, for every point.
    jobs : int
        Number of processes; -1 for one on each core.
    engine : {"cpu", "cuda"}
        Where the models run over the data; gradients are torch's, on the CPU.
    seed : int
        Fixes every random choice: the numbers do not depend on `jobs`.
    progress : callable
        Called with a sentence, the number of steps done, and their total.

    Raises
    ------
    ModelError, PlanError, SchemeError, DataError, OutputError, ProviderError
        If an input is at fault; the message names the remedy.
    """
    if jobs < 1 and jobs != -1:
        raise DataError(f"the number of jobs is {jobs}; give 1 or more, or -1 for all cores")
    provider = onnxruntime_provider(engine, "a sweep")
    require_provider(provider)
    metrics = _check_metrics(metrics, calibrated=data.calibration is not None)
    rules = expand_rules(schemes)
    if not rules:
        raise PlanError("no scheme is given; choose one or more with --scheme")
    original = open_model(model)
    normalised = _normalise(original)
    selected = [layer.name for layer in select_layers(find_layers(original), layers)]
    needs = frozenset().union(*(NEEDS[metric] for metric in metrics))
    datasets = data.open(original, seed, gradients="gradients" in needs)[: 2 if needs else 1]

    progress("looking at the data", 0, 1)
    surveys = look(datasets)
    listed = find_layers(normalised, input_shapes=surveys[0].shapes, check_values=True)
    found = {layer.name: layer for layer in listed}
    missing = tuple(
        Skipped(name, None, "it is folded away before the fits")
        for name in selected
        if name not in found
    )
    editor = GraphEditor(normalised)
    points, skipped = make_grid(
        [found[name] for name in selected if name in found],
        rules,
        metrics,
        lambda name: layer_weight(editor, found[name]),
    )
    if not points:
        reasons = "; ".join(f"{s.layer}: {s.reason}" for s in (*missing, *skipped)[:3])
        raise PlanError(f"the grid is empty ({reasons}); choose other layers or schemes")

    wanted = list(dict.fromkeys(point.layer for point in points))
    entries = [
        statistics_keys(
            normalised, survey, wanted, sampling=Sampling(seed=seed), engine=open_engine(provider)
        )
        for survey in surveys
    ]
    folder = _make_folder(output)
    journal = Journal(folder / "points.jsonl")
    labels = surveys[0].labels if network else ""
    keys = {point: _key(point, entries, seed, labels, surveys[-1]) for point in points}
    left = [point for point in points if keys[point] not in journal]
    if left:
        work = folder / "work"
        try:
            statistics = [
                _statistics(normalised, dataset, survey, left, work, seed, provider, progress)
                for dataset, survey in zip(datasets, surveys, strict=True)
            ]
            refused = {name: why for each in statistics for name, why in each.refused.items()}
            skipped = (*skipped, *(Skipped(name, None, why) for name, why in refused.items()))
            points = tuple(point for point in points if point.layer not in refused)
            left = [point for point in left if point.layer not in refused]
            if not points:
                name, why = next(iter(refused.items()))
                raise DataError(f"layer '{name}': {why}")
            gradients = _gradients(normalised, datasets[-1], left, work, progress)
            save_model(normalised, work / "model.onnx")
            setting = Setting(
                model=work / "model.onnx",
                held_out=statistics[0],
                calibration=statistics[-1],
                gradients=gradients,
                calibration_images=surveys[-1].images if needs else None,
                filters=folder / "filters",
                seed=seed,
                network=datasets[0] if network else None,
                threads=threads_per_job(jobs),
                provider=provider,
            )
            done = len(points) - len(left)
            for key, found_there in evaluate_all(setting, [(p, keys[p]) for p in left], jobs):
                journal.add(key, found_there)
                done += 1
                progress(f"{found_there.layer} as {found_there.scheme}", done, len(points))
        finally:
            # Only a kill leaves them: then the next run takes the statistics from there.
            rmtree(work, ignore_errors=True)
            with suppress(OSError):  # not empty
                folder.rmdir()
    results = {point: journal[keys[point]] for point in points}
    filters = {results[point]: folder / "filters" / f"{keys[point]}.npz" for point in points}
    report = SweepReport(
        model=_name(model, original),
        settings={
            "layers": list(layers),
            "schemes": [str(rule).removeprefix("*=") for rule in rules],
            "metrics": list(metrics),
            "network": network,
            "calibration_images": surveys[-1].images if needs else None,
            "seed": seed,
        },
        held_out_images=surveys[0].images,
        points=tuple(results.values()),
        skipped=(*missing, *skipped),
        notes=tuple(
            f"{name}: {note}"
            for name, dataset in zip(("held-out data", "calibration"), datasets, strict=False)
            for note in dataset.notes
        ),
        reused=len(points) - len(left),
        provider=provider,
        filters={result: file for result, file in filters.items() if file.exists()},
    )
    write_text(folder / "sweep.json", json.dumps(report.to_document(), indent=2) + "\n")
    write_text(folder / "sweep.csv", report.to_csv())
    return report


def _check_metrics(metrics: Sequence[str], *, calibrated: bool) -> tuple[str, ...]:
    for metric in metrics:
        if metric not in METRICS:
            hint = suggest(metric, METRICS) or f"; choose from {', '.join(METRICS)}"
            raise PlanError(f"there is no metric '{metric}'{hint}")
        if NEEDS[metric] and not calibrated:
            raise DataError(f"the metric {metric} needs calibration samples; give --calibrate")
    return tuple(dict.fromkeys(metrics))


def _normalise(original: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with constants and normalisations folded, as `compress` fits it."""
    model = onnx.ModelProto()
    model.CopyFrom(original)
    # Of all layers, not of the chosen ones: points stay valid when layers are added to the sweep.
    names = frozenset(layer.name for layer in find_layers(original))
    normalisation(names).run(model)
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
    point: Point,
    entries: Sequence[Mapping[str, str]],
    seed: int,
    labels: str,
    calibration: Survey,
) -> str:
    """Return a hash of all that a point depends on.

    The entries stand for model, data and the rule by which positions are chosen; a metric without
    data does not depend on those for calibration, and only gradients on the labels there.
    """
    needs = NEEDS[point.metric]
    return key_of(
        *(FORMAT, point.layer, point.scheme.spec, point.metric, seed, labels),
        *(entry[point.layer] for entry in (entries if needs else entries[:1])),
        calibration.labels if "gradients" in needs else "",
    )


def _statistics(
    model: onnx.ModelProto,
    dataset: Dataset,
    survey: Survey,
    points: Sequence[Point],
    work: Path,
    seed: int,
    provider: Provider,
    progress: Progress,
) -> StoredStatistics:
    """Return the statistics of one data set, of the layers that have points left."""
    layers = list(dict.fromkeys(point.layer for point in points))
    return calibrate(
        model,
        dataset,
        layers,
        sampling=Sampling(seed=seed),
        engine=open_engine(provider),
        cache_dir=work,
        survey=survey,
        progress=progress,
    )


def _gradients(
    model: onnx.ModelProto,
    dataset: Dataset,
    points: Sequence[Point],
    work: Path,
    progress: Progress,
) -> dict[str, Path]:
    """Write the gradients of the layers whose points take them, and return their files."""
    wanted = dict.fromkeys(p.layer for p in points if "gradients" in NEEDS[p.metric])
    if not wanted:
        return {}
    progress("gradients of the softmax output", 0, 1)
    files = {}
    for number, (layer, metric) in enumerate(layer_gradients(model, dataset, [*wanted]).items()):
        files[layer] = work / f"gradients{number}.npy"
        save_gradients(metric, files[layer])
    return files


def _name(model: ModelSource, proto: onnx.ModelProto) -> str:
    if isinstance(model, str | os.PathLike):
        return Path(model).name
    return proto.graph.name or "model"
