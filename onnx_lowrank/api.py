"""`compress` and its siblings: what the command line calls, read top to bottom."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from onnx_lowrank.data import Dataset, Preprocess, open_dataset, random_dataset
from onnx_lowrank.errors import DataError, ModelError, PlanError
from onnx_lowrank.files import Input, Output, check_outputs, write_text
from onnx_lowrank.fit_model import Calibration, MetricName, fit_model
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.external import data_files
from onnx_lowrank.graph.gate import open_model, read_model
from onnx_lowrank.graph.io import check_output
from onnx_lowrank.graph.layers import Layer, find_layers, layer_weight
from onnx_lowrank.measure.score import Score, ScoreSource
from onnx_lowrank.measure.verification import Tolerance, VerifyReport
from onnx_lowrank.measure.verification import verify as verify_models
from onnx_lowrank.planning.cost import plan_costs
from onnx_lowrank.planning.plan import (
    Plan,
    Rule,
    Weights,
    applicable,
    decide,
    default_plan,
    read_plan,
)
from onnx_lowrank.results import (
    CompressReport,
    CompressResult,
    CostReport,
    FileBytes,
    LayerInfo,
    inspected,
)
from onnx_lowrank.rewriting.form import Replacement
from onnx_lowrank.rewriting.forms import checked_forms, default_form, find_form, layer_forms
from onnx_lowrank.rewriting.passes.normalize import normalised
from onnx_lowrank.rewriting.rewrite import rewrite
from onnx_lowrank.runtime import fix_shapes, model_inputs
from onnx_lowrank.runtime.doctor import Diagnosis, diagnose
from onnx_lowrank.runtime.engines import open_engine, statistics_note
from onnx_lowrank.runtime.library import Lowering
from onnx_lowrank.schemes import SCHEMES
from onnx_lowrank.types import ModelSource, Progress

__all__ = [
    "CompressReport",
    "CompressResult",
    "CostReport",
    "Diagnosis",
    "FileBytes",
    "LayerInfo",
    "Lowering",
    "Plan",
    "Preprocess",
    "Progress",
    "Rule",
    "Tolerance",
    "VerifyReport",
    "check_files",
    "check_output",
    "compress",
    "cost",
    "diagnose",
    "inspect",
    "inspected",
    "verify",
    "write_text",
]

PlanSource = Plan | Path | Sequence[str | Rule]
"""Called before each step with a sentence, the number of steps done, and their total."""
RANDOM_SAMPLES = 8  # enough to see a wrong rewrite; what it loses on real inputs takes data


def _silent(step: str, done: int, total: int) -> None:
    """Show nothing."""


def inspect(
    model: ModelSource, *, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[LayerInfo, ...]:
    """List the layers of a model in graph order, and which schemes each can take.

    Parameters
    ----------
    model : path, bytes or ModelProto
        The model.
    input_shapes : mapping, optional
        Shapes of inputs that the model leaves open; needed to count multiply-adds there.
    """
    layers = _layers(open_model(model), input_shapes)
    return tuple(_layer_info(layer) for layer in layers)


def _layer_info(layer: Layer) -> LayerInfo:
    schemes, reason = applicable(layer)
    forms: tuple[str, ...] = ()
    if layer.reason is None and layer.spec is not None:
        forms = layer_forms(map(SCHEMES.__getitem__, schemes), layer.spec, layer.dtype)
    return LayerInfo(layer, schemes, reason, forms)


def cost(
    model: ModelSource,
    *,
    plan: PlanSource | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> CostReport:
    """Count operations and parameters before and after a plan, without fitting anything."""
    loaded = open_model(model)
    layers = _layers(loaded, input_shapes)
    decided = resolve_plan(layers, plan, weights=_weights(loaded, layers))
    return CostReport(decided, plan_costs(layers, decided))


def verify(
    original: ModelSource,
    compressed: ModelSource,
    *,
    data: Any = None,
    preprocess: Preprocess | str | None = None,
    labels_from: str | os.PathLike[str] | None = None,
    strict: bool = False,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    limit: int | None = None,
    tolerance: Tolerance | None = None,
    seed: int = 0,
    score: ScoreSource | None = None,
    engine: str | None = None,
) -> VerifyReport:
    """Run two models on the same inputs and compare every output.

    Parameters
    ----------
    original, compressed : path, bytes or ModelProto
        The models.
    data : optional
        Any source that `onnx_lowrank.data.open_dataset` takes; seeded random inputs if not given.
    preprocess : Preprocess, optional
        How images become inputs.
    labels_from : path or str, optional
        Where labels come from, if not from the source itself, as of `open_dataset`.
    strict : bool
        Whether an unreadable image is an error instead of being skipped.
    input_shapes : mapping, optional
        Shapes of inputs that the model leaves open, for random inputs.
    limit : int, optional
        Number of samples.
    tolerance : Tolerance, optional
        What passes.
    seed : int
        Seed of random inputs.
    score : str or callable, optional
        A user's figure of merit, ``"module:callable"`` or a callable, as of
        `onnx_lowrank.measure.score.Score`.
    engine : {"cpu", "cuda", "openvino"}, optional
        Where both run: that one must work. Otherwise in onnxruntime on the CPU, and on CUDA where
        that works.

    Raises
    ------
    ModelError, DataError
        If an input is at fault; the message names the remedy.
    ProviderError
        The engine is unknown, missing or does not work.
    """
    engines = None if engine is None else (open_engine(engine),)
    for each in engines or ():
        each.require()
    reference, other = read_model(original), read_model(compressed)
    dataset = _dataset(
        reference.model, data, preprocess, labels_from, strict, input_shapes, limit, seed
    )
    judge = None if score is None else Score.open(score)
    report = verify_models(
        reference.model,
        other.model,
        dataset,
        engines=engines,
        tolerance=tolerance,
        score=judge,
    )
    repaired = [f"the original: {note}" for note in reference.notes]
    repaired += [f"the compressed model: {note}" for note in other.notes]
    return replace(report, notes=(*repaired, *report.notes))


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
    progress: Progress = _silent,
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
        Whether each layer is fitted to the inputs that it will see in the compressed network.
    metric : {"covariance", "mahalanobis", "combined"}, optional
        What the fits minimise over the calibration data, as of `Calibration`; the covariance if not
        given.
    cache_dir : path, optional
        Where statistics of the calibration data are kept between calls.
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
    where = open_engine(engine)
    where.require()
    form = default_form(lowering, where)
    source = read_model(model)
    original = source.model
    layers = _layers(original, input_shapes)
    decided = resolve_plan(layers, plan, weights=_weights(original, layers))
    forms = {name: find_form(each or form.name) for name, each in decided.forms.items()}
    if not decided.chosen:
        raise PlanError(_nothing_replaced({d.layer: d.reason for d in decided.decisions}))
    dataset = (
        _dataset(original, data, preprocess, labels_from, strict, input_shapes, limit, seed)
        if verification
        else None
    )

    steps = len(decided.chosen) + 3
    samples = None
    if calibration is not None:
        inputs = fix_shapes(model_inputs(original), input_shapes or {})
        calibrated = open_dataset(
            calibration,
            inputs,
            preprocess=preprocess,
            limit=calibration_limit,
            # Of no use to the covariance: then they need not be right either.
            labels_from="none" if metric == "covariance" else None,
            strict=strict,
            seed=seed,
        )
        samples = Calibration(
            calibrated, asymmetric, cache_dir, metric or "covariance", where.device
        )
    elif asymmetric:
        raise DataError("asymmetric fits need data; give calibration samples")
    elif metric is not None:
        raise DataError(f"the metric '{metric}' needs data; give calibration samples")
    progress("normalising", 0, steps)
    prepared, _ = normalised(original, decided.chosen)

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
        ),
        source=Path(model) if isinstance(model, str | os.PathLike) else None,
    )


def check_files(outputs: Sequence[Output], inputs: Sequence[Input]) -> None:
    """Raise OutputError where a file cannot be written, or is an input or another output.

    What holds the weights of a model among the inputs is an input too.
    """
    weights = []
    if any(output.writes or os.path.exists(output.path) for output in outputs):
        weights = [
            Input(f"holds the weights of {source.path}", file)
            for source in inputs
            if os.path.isfile(source.path)
            for file in data_files(source.path)
        ]
    check_outputs(outputs, [*inputs, *weights])


def _nothing_replaced(reasons: Mapping[str, str | None]) -> str:
    first = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:3])
    return f"no layer is replaced ({first}); choose layers and schemes with --layer"


def resolve_plan(
    layers: Sequence[Layer], plan: PlanSource | None, *, weights: Weights | None = None
) -> Plan:
    """Turn what a user gave as a plan into one decision per layer.

    `weights` gives a layer's weight by its name, for ranks that are a share of its energy.

    Raises
    ------
    PlanError, SchemeError
        If the plan cannot be read or does not fit the layers.
    """
    if plan is None:
        return default_plan(layers)
    if isinstance(plan, Plan):
        if [d.layer for d in plan.decisions] != [layer.name for layer in layers]:
            raise PlanError("the plan was made for other layers; make one for this model")
        return checked_forms(layers, plan)
    if isinstance(plan, Path):
        rules = read_plan(plan)
    else:
        rules = tuple(r if isinstance(r, Rule) else Rule.parse(r) for r in plan)
    return checked_forms(layers, decide(layers, rules, weights=weights))


def _weights(model: onnx.ModelProto, layers: Sequence[Layer]) -> Weights:
    """Return a function from a layer's name to its weight, as the model has it."""
    by_name = {layer.name: layer for layer in layers}
    editor = GraphEditor(model)
    return lambda name: layer_weight(editor, by_name[name])


def _dataset(
    model: onnx.ModelProto,
    data: Any,
    preprocess: Preprocess | str | None,
    labels_from: str | os.PathLike[str] | None,
    strict: bool,
    input_shapes: Mapping[str, tuple[int, ...]] | None,
    limit: int | None,
    seed: int,
) -> Dataset:
    inputs = fix_shapes(model_inputs(model), input_shapes or {})
    if data is None:
        return random_dataset(inputs, count=limit or RANDOM_SAMPLES, seed=seed)
    return open_dataset(
        data,
        inputs,
        preprocess=preprocess,
        labels_from=labels_from,
        strict=strict,
        limit=limit,
        seed=seed,
    )


def _layers(
    model: onnx.ModelProto, input_shapes: Mapping[str, tuple[int, ...]] | None
) -> tuple[Layer, ...]:
    layers = find_layers(model, input_shapes=input_shapes, check_values=True)
    if not layers:
        raise ModelError(
            "the model has no Conv and no fully connected layer; there is nothing to do"
        )
    return layers
