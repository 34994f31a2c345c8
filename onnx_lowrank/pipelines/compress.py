"""`compress`: a plan in, a smaller model and its verdict out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnx_lowrank.data import DataOptions, Preprocess
from onnx_lowrank.errors import DataError, PlanError
from onnx_lowrank.files import source_path
from onnx_lowrank.fitting.model import Calibration, MetricName, fit_model
from onnx_lowrank.graph.gate import read_model
from onnx_lowrank.measure.verification import Tolerance
from onnx_lowrank.measure.verification import verify as verify_models
from onnx_lowrank.pipelines.plans import PlanSource, listed_layers, resolve_plan, weights_of
from onnx_lowrank.pipelines.result import (
    CompressReport,
    CompressResult,
    CostReport,
    FileBytes,
)
from onnx_lowrank.planning.cost import plan_costs
from onnx_lowrank.rewriting.form import Replacement
from onnx_lowrank.rewriting.forms import default_form, plan_forms
from onnx_lowrank.rewriting.passes.normalize import normalised
from onnx_lowrank.rewriting.rewrite import rewrite
from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.runtime.engines import open_engine, statistics_note
from onnx_lowrank.runtime.library import Lowering
from onnx_lowrank.step_seconds import StepSeconds
from onnx_lowrank.training.gradients import layer_gradients
from onnx_lowrank.types import ModelSource, Progress, silent


def compress(
    model: ModelSource,
    *,
    plan: PlanSource | None = None,
    data: Any = None,
    preprocess: Preprocess | str | None = None,
    labels_from: str | os.PathLike[str] | None = None,
    strict: bool = False,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    limit: int | None = None,
    tolerance: Tolerance | None = None,
    verification: bool = True,
    calibration: Any = None,
    calibration_limit: int | None = None,
    asymmetric: bool = False,
    metric: MetricName | None = None,
    cache_dir: Path | None = None,
    lowering: Lowering = "standard",
    engine: str = "cpu",
    seed: int = 0,
    progress: Progress = silent,
) -> CompressResult:
    """Replace layers of a model by low-rank subgraphs and compare the result with the original.

    Parameters
    ----------
    model : path, bytes or ModelProto
        The model; a ModelProto is not changed.
    plan : Plan, path of a plan, or sequence of ``"NAME=SCHEME"``, optional
        What to replace by what; a sensible default if not given.
    data, preprocess, labels_from, strict, input_shapes, limit, tolerance
        As for `verify`.
    verification : bool
        Whether to run both models at the end.
    calibration : optional
        Data like `data`, but other samples: the expected error of each layer's output over them is
        what its fit minimises. Without it, it is the error of the weights.
    calibration_limit : int, optional
        Number of samples for that.
    asymmetric : bool
        Whether each layer is fitted to the inputs that it will get in the compressed network.
    metric : {"covariance", "mahalanobis", "combined"}, optional
        What the fits minimise over the calibration data, as of `Calibration`; the covariance if not
        given.
    cache_dir : path, optional
        Where statistics of the calibration data are cached between calls.
    lowering : {"standard", "portable", "auto"}
        What the new layers are made of. Standard ops; or nodes of the package's own ops, and LRN
        likewise, each with a body of standard ops: they run in any ONNX runtime, and faster where
        the kernel library is registered. ``auto``: portable where the library loads here.
    engine : {"cpu", "cuda", "openvino"}
        Where models run. The comparison at the end is in onnxruntime on the CPU, and on CUDA where
        that works; another engine than "cpu" must work, and the comparison is there alone.
        Statistics for fits are taken in onnxruntime on the engine's device.
    seed : int
        Fixes every random choice; two runs with one seed give the same bytes.
    progress : callable
        Called before each step; silent if not given.

    Returns
    -------
    CompressResult
        With ``.model``, ``.report``, ``.plan`` and ``.save()``.

    Raises
    ------
    ModelError, PlanError, SchemeError, DataError
        If an input is at fault; the message names the remedy.
    ProviderError
        The engine is unknown, missing or does not work.
    """
    seconds = StepSeconds()
    evaluation = DataOptions(
        data=data,
        preprocess=preprocess,
        labels_from=labels_from,
        strict=strict,
        limit=limit,
        input_shapes=input_shapes,
        seed=seed,
    )
    where = open_engine(engine)
    where.require()
    form = default_form(lowering, where)
    source = read_model(model)
    original = source.model
    layers = listed_layers(original, input_shapes)
    decided = resolve_plan(layers, plan, weights=weights_of(original, layers))
    forms = plan_forms(decided.forms, form, where)
    if not decided.chosen:
        raise PlanError(_nothing_replaced({d.layer: d.reason for d in decided.decisions}))
    inputs = model_inputs(original)
    dataset = evaluation.open(inputs, random=True) if verification else None

    steps = len(decided.chosen) + 3
    samples = None
    if calibration is not None:
        calibrated = replace(
            evaluation,
            data=calibration,
            limit=calibration_limit,
            # Of no use to the covariance: then they need not be right either.
            labels_from="none" if metric == "covariance" else None,
        )
        samples = Calibration(
            calibrated.open(inputs),
            asymmetric=asymmetric,
            cache_dir=cache_dir,
            metric=metric or "covariance",
            engine=where,
            gradients=layer_gradients,
        )
    elif asymmetric:
        raise DataError("asymmetric fits need data; give calibration samples")
    elif metric is not None:
        raise DataError(f"the metric '{metric}' needs data; give calibration samples")
    progress("normalising", 0, steps)
    prepared, _ = normalised(original, decided.chosen)

    with seconds.step("statistics and fits"):
        found = fit_model(
            prepared,
            decided,
            calibration=samples,
            seed=seed,
            progress=lambda step, done, _: progress(step, done + 1, steps),
        )
    fits, decided = found.fits, decided.keeping(found.failed)
    if not fits:
        raise PlanError(_nothing_replaced(found.failed))

    progress("rewriting", steps - 2, steps)
    rewritten, changed = rewrite(
        original,
        {name: Replacement(fit.factors, fit.bias, forms[name]) for name, fit in fits.items()},
        forms=(form,),
        input_shapes=input_shapes,
    )

    report = None
    if dataset is not None:
        progress("verifying", steps - 1, steps)
        with seconds.step("verdict"):
            report = verify_models(
                original,
                rewritten,
                dataset,
                engines=None if where.name == "cpu" else (where,),
                tolerance=tolerance,
            )
    return CompressResult(
        model=rewritten,
        report=CompressReport(
            cost=CostReport(decided, plan_costs(layers, decided)),
            fits=fits,
            changes=changed.changes,
            refusals=changed.refusals,
            verification=report,
            notes=(
                *source.notes,
                *changed.notes,
                *(f"calibration: {note}" for note in (samples.dataset.notes if samples else ())),
                *where.notes,
                *(statistics_note(where) if samples else ()),
            ),
            file_bytes=FileBytes.of(model, original, rewritten),
            seconds=seconds.to_dict(),
        ),
        source=source_path(model),
    )


def _nothing_replaced(reasons: Mapping[str, str | None]) -> str:
    first = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:3])
    return f"no layer is replaced ({first}); choose layers and schemes with --layer"
