"""`compress_to_budget`: a budget and data in, the fastest model within it out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import onnx

from onnx_lowrank.cache import Cache, default_folder
from onnx_lowrank.data import DataOptions, Dataset, Preprocess
from onnx_lowrank.data.split import fewest_samples, split
from onnx_lowrank.errors import DataError, PlanError
from onnx_lowrank.files import source_path
from onnx_lowrank.fitting.cluster import check_scheduler
from onnx_lowrank.graph.gate import read_model
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.measure.remembered import RememberedModel
from onnx_lowrank.measure.score import Score
from onnx_lowrank.measure.verification import Tolerance, VerifyReport
from onnx_lowrank.measure.verification import verify as verify_models
from onnx_lowrank.measure.workload import make_feeds
from onnx_lowrank.pipelines.budget_result import BudgetResult
from onnx_lowrank.pipelines.result import CompressReport, CompressResult, CostReport, FileBytes
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.planning.cost import plan_costs, uncounted, untouched
from onnx_lowrank.planning.latency import SavedLatencies
from onnx_lowrank.rewriting.forms import AUTO, STANDARD, allowed_forms
from onnx_lowrank.rewriting.passes.normalize import normalised
from onnx_lowrank.rewriting.rewrite import rewrite
from onnx_lowrank.runtime import fix_shapes, model_inputs
from onnx_lowrank.runtime.engines import open_engine, statistics_note
from onnx_lowrank.runtime.library import Lowering
from onnx_lowrank.search.context import RunOptions, SearchContext, SearchSamples
from onnx_lowrank.search.latency_source import LatencySource, MeasuredHere
from onnx_lowrank.search.latency_table import model_key
from onnx_lowrank.search.measured_elsewhere import MeasuredElsewhere
from onnx_lowrank.search.run import search
from onnx_lowrank.search.search_space import searched
from onnx_lowrank.search.settings import SETTINGS, SearchSettings
from onnx_lowrank.search.timing import Stopwatch
from onnx_lowrank.step_seconds import StepSeconds
from onnx_lowrank.types import ModelSource, Progress, silent

# Of the data for the search; of all data where none is set apart for the verdict.
SEARCH_SHARES = (0.45, 0.55)
ALL_SHARES = (0.3, 0.35, 0.35)


def compress_to_budget(
    model: ModelSource,
    budget: Budget,
    *,
    data: Any,
    calibration: Any = None,
    preprocess: Preprocess | str | None = None,
    labels_from: str | os.PathLike[str] | None = None,
    strict: bool = False,
    limit: int | None = None,
    calibration_limit: int | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    threads: int | None = None,
    engine: str = "cpu",
    jobs: int = 1,
    dask: str | None = None,
    latency: SavedLatencies | LatencySource | None = None,
    lowering: Lowering = "auto",
    keep: Sequence[str] = (),
    cache_dir: Path | None = None,
    seed: int = 0,
    settings: SearchSettings = SETTINGS,
    progress: Progress = silent,
) -> BudgetResult:
    """Find and build the fastest model within a budget.

    Candidates for every layer are fitted to calibration samples and timed beside the layer on this
    machine; a knapsack chooses among them, whole models correct it; the verdict is on samples that
    none of this used. All results are cached: a run that was killed goes on where it was.

    Parameters
    ----------
    model : path, bytes or ModelProto
        The model; not changed.
    budget : Budget
        What may be lost and must be gained.
    data : path, str or iterable
        Samples for the verdict, as of `onnx_lowrank.data.open_dataset`. Without `calibration` a
        third of them is, and the others serve the search.
    calibration : path, str or iterable, optional
        Samples for the search, other than those in `data`.
    preprocess, labels_from, strict : optional
        As of `open_dataset`.
    limit, calibration_limit : int, optional
        Number of samples of `data` and of `calibration`.
    input_shapes : mapping, optional
        Shapes of inputs that the model leaves open; that of one image where it takes any number.
    threads : int, optional
        Threads of the deployment; the engine's own choice by default.
    engine : {"cpu", "cuda", "openvino"}
        Where it will run, and is timed and verified.
    jobs : int
        Processes for the fits.
    dask : str, optional
        Address of a Dask scheduler whose workers make the fits instead; extra ``dask``. Everything
        else, timing above all, is done here.
    latency : SavedLatencies or LatencySource, optional
        Latencies measured on another machine, for which the model is then made: nothing is timed
        here, and threads, engine and input shapes are those of that measurement. Or another source
        of latencies than this machine's clock.
    lowering : {"standard", "portable", "auto"}
        The forms that candidates may have, each timed in its own; ``auto``: all that can be fast
        here, side by side in one model. Latencies of another machine are those of standard ops.
    keep : sequence of str
        Names or globs of layers that the search leaves as they are.
    cache_dir : path, optional
        Where results are cached; the user's cache folder by default.
    seed : int
        Fixes every random choice.
    settings : SearchSettings
        How long the search measures, how far it looks, and when it stops.
    progress : callable
        Called with a sentence, the number of steps done, and their total.

    Raises
    ------
    ModelError, PlanError, DataError, ProviderError, ClusterError
        If an input is at fault; the message names the remedy.
    """
    seconds = StepSeconds()
    samples = DataOptions(
        data=data,
        preprocess=preprocess,
        labels_from=labels_from,
        strict=strict,
        limit=limit,
        input_shapes=input_shapes,
        seed=seed,
    )
    # By latencies of another machine nothing runs in its engine here.
    table = latency if isinstance(latency, SavedLatencies) else None
    here = open_engine("cpu" if table is not None else engine, threads)
    here.require()
    if dask is not None:
        check_scheduler(dask)
    score = None if budget.score is None else Score.open(budget.score)
    source = read_model(model)
    original = source.model
    names, kept = searched(original, keep)
    prepared, _ = normalised(original, names)
    if table is None:
        forms = allowed_forms(lowering, here)
    else:
        forms = (STANDARD,)
        if lowering not in (AUTO, STANDARD.name):
            raise PlanError(
                "saved latencies are of standard ops; leave out the lowering, or the latencies"
            )
        input_shapes = input_shapes or table.input_shapes or None
        samples = replace(samples, input_shapes=input_shapes)
        _check_latency(table, original, threads, engine, samples)
    layers = find_layers(original, input_shapes=input_shapes)
    inputs = fix_shapes(model_inputs(original), input_shapes or {})
    budget.check_countable(
        uncounted(plan_costs(layers, untouched(layers))),
        open_sizes=any(
            info.shape is None or not all(isinstance(size, int) for size in info.shape[1:])
            for info in inputs
        ),
    )
    if calibration is None:
        fitting, selection, verdict = _divided(
            samples.open(inputs), ALL_SHARES, "fits, search and verdict"
        )
    else:
        others = replace(samples, data=calibration, limit=calibration_limit)
        fitting, selection = _divided(others.open(inputs), SEARCH_SHARES, "fits and search")
        verdict = samples.open(inputs)

    store = Cache((cache_dir or default_folder()) / "search")
    if isinstance(latency, SavedLatencies):
        latency = MeasuredElsewhere(latency)
    elif latency is None:
        latency = MeasuredHere(Stopwatch(here, seed, settings), store)
    found = search(
        SearchContext(
            original=original,
            normalised=prepared,
            layers=find_layers(prepared, input_shapes=input_shapes, check_values=True),
            budget=budget,
            forms=forms,
            samples=SearchSamples(calibration=fitting, search=selection, verdict=verdict.samples),
            latencies=latency,
            store=store,
            options=RunOptions(engine=here, jobs=jobs, cluster=dask, seed=seed),
            input_shapes=input_shapes,
            score=score,
            kept=kept,
            settings=settings,
            progress=progress,
            seconds=seconds,
        )
    )

    progress("rewriting", 0, 1)
    replacements = {name: candidate.replacement for name, candidate in found.chosen.items()}
    rewritten, changed = rewrite(original, replacements, forms=forms, input_shapes=input_shapes)
    report: VerifyReport | None = None
    if found.chosen:  # there is no verdict on the original
        progress("verifying on samples that the search did not see", 0, 1)
        with seconds.step("verdict"):
            report = verify_models(
                RememberedModel(original, store),
                rewritten,
                verdict,
                engines=None if here.name == "cpu" else (here.with_threads(None),),
                tolerance=_tolerance(budget, verdict),
                score=score,
            )
    costs = CostReport(found.plan, plan_costs(layers, found.plan))
    sizes = FileBytes.of(model, original, rewritten)
    result = CompressResult(
        model=rewritten,
        report=CompressReport(
            cost=costs,
            fits={name: candidate.fit for name, candidate in found.chosen.items()},
            changes=changed.changes,
            refusals=changed.refusals,
            verification=report,
            notes=(
                *source.notes,
                *changed.notes,
                *(f"calibration: {note}" for note in fitting.notes),
                *here.notes,
                *statistics_note(here),
            ),
            file_bytes=sizes,
            seconds=seconds.to_dict(),
        ),
        source=source_path(model),
    )
    missed = budget.missed(costs.total, sizes.after)
    failures = (*found.failures, *(report.failures if report else ()), *missed)
    if found.chosen and found.latency.high >= 1:
        why = f"it is not faster: it takes {found.latency.ratio:.3f} of the time"
        if table is not None:
            why = f"it is not faster for certain: up to {found.latency.high:.3f} of the time"
        failures = (*failures, why)
    if budget.objective != "latency" and (not found.chosen or found.latency.high >= 1):
        why = f"a search for few {budget.objective} asks for a faster model too"
        failures = (*failures, why)
    expected = None
    if found.predictor is not None and report is not None:
        expected = found.predictor.predict(report.samples)
    return BudgetResult(result, found, failures, table, expected, missed)


def _divided(dataset: Dataset, shares: Sequence[float], uses: str) -> tuple[Dataset, ...]:
    """Split the samples; raise DataError where there are some, but too few for every part."""
    fewest = fewest_samples(shares)
    found = sum(1 for _ in islice(dataset.source, min(dataset.limit or fewest, fewest)))
    if 0 < found < fewest:
        remedy = "ask for more" if found == dataset.limit else "add data"
        raise DataError(
            f"{uses} share no sample, so at least {fewest} are needed to divide among them; "
            f"here {'is 1' if found == 1 else f'are {found}'}; {remedy}"
        )
    return split(dataset, shares)


def _check_latency(
    latency: SavedLatencies,
    original: onnx.ModelProto,
    threads: int | None,
    engine: str,
    samples: DataOptions,
) -> None:
    """Raise PlanError where latencies are of another model, or of other settings than asked for."""
    feeds = make_feeds(original, latency.batch, replace(samples, data=None))
    if model_key(original, feeds) != latency.model:
        raise PlanError(
            f"the latencies are those of {latency.name}, which is another model, input shape or "
            "opset; make them from this model with bench --save-latency"
        )
    asked = [
        f"{name} {given}"
        for name, given, default, saved in (
            ("threads", threads, None, latency.threads),
            ("engine", engine, "cpu", latency.provider),
        )
        if given not in (default, saved)
    ]
    if asked:
        raise PlanError(
            f"the latencies are of {latency.origin}, not of {' and '.join(asked)}; "
            "leave that out, or measure anew with bench --save-latency"
        )


def _tolerance(budget: Budget, verdict: Dataset) -> Tolerance:
    """Return what the verdict asks for: points of accuracy, or of agreement without labels."""
    if budget.score is not None:
        return Tolerance(
            min_sqnr_db=budget.min_sqnr_db, max_drop=None, max_score_drop=budget.max_drop
        )
    labelled = next(iter(verdict)).labels is not None
    agreement = budget.max_drop is not None and not labelled
    return Tolerance(
        min_sqnr_db=budget.min_sqnr_db,
        max_drop=budget.max_drop if labelled else None,
        min_top1=1 - (budget.max_drop or 0) / 100 if agreement else None,
    )
