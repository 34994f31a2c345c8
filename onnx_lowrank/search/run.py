"""From a budget to the fastest model within it, by measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnx_lowrank.bounds import SQNR_CAP_DB
from onnx_lowrank.errors import PlanError
from onnx_lowrank.fitting.parallel import LayerTask
from onnx_lowrank.fitting.statistics import Sampling, calibrate
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.io import serialised_size
from onnx_lowrank.graph.layers import find_layers, layer_bias, layer_weight
from onnx_lowrank.planning.latency import Timed
from onnx_lowrank.planning.plan import Decision, Plan
from onnx_lowrank.rewriting.forms import STANDARD
from onnx_lowrank.schemes import Scheme
from onnx_lowrank.search.candidate import Chosen, Option
from onnx_lowrank.search.context import SearchContext
from onnx_lowrank.search.error_curve import fitted_first
from onnx_lowrank.search.evaluator import Evaluator
from onnx_lowrank.search.layer_fits import LayerFits
from onnx_lowrank.search.options import Options, timed_options
from onnx_lowrank.search.problem import Picks, Problem
from onnx_lowrank.search.quality import Quality
from onnx_lowrank.search.quality_meter import QualityMeter
from onnx_lowrank.search.result import LayerChoice, SearchResult
from onnx_lowrank.search.search_space import SearchSpace, search_space
from onnx_lowrank.search.sizes import freed
from onnx_lowrank.search.strategies import choose_picks


def search(context: SearchContext) -> SearchResult:
    """Find the plan of least cost within a budget.

    Candidates of every layer are fitted to the samples' inputs and timed in all forms; a knapsack
    chooses among them, and whole models correct it.

    Raises
    ------
    PlanError
        The budget asks for classes that the model has not.
    DataError, ModelError, ProviderError
        As of calibration, onnxruntime and the data.
    """
    space, reasons = search_space(
        context.layers, kept=context.kept, forms=context.forms, settings=context.settings
    )
    if not space:
        return _nothing(context, reasons, "no layer can be approximated")
    context.progress("measuring the original", 0, 1)
    with context.seconds.step("whole models"):
        meter = QualityMeter(
            context.original,
            context.samples.search,
            score=context.score,
            engine=context.options.engine.with_threads(None),
        )
    if context.budget.max_drop is not None and not meter.has_drop:
        raise PlanError(
            "max_drop needs one output with a score for each class, or a score of your own; "
            "give min_sqnr, or leave max_drop out"
        )
    with context.seconds.step("statistics"):
        tasks = _tasks(context, space, reasons)
    fits = LayerFits(context, tasks)
    fits.make(_fitted_first(context, tasks))
    reasons |= fits.failed
    with context.seconds.step("timing layers"):
        options = timed_options(context, space, fits, reasons)
    if not options.by_layer:
        why = "no layer has a candidate that is measurably faster"
        return _nothing(context, reasons, why if tasks else "no layer can be approximated")
    evaluator = Evaluator(context, options.by_layer, fits, meter)
    with context.seconds.step("probes"):
        problem = build_problem(context, options, evaluator)
    with context.seconds.step("choosing"):
        found = choose_picks(context, evaluator, problem)
        chosen, quality = evaluator.best(found.picks)
        predictor = evaluator.predictor(chosen)
    return SearchResult(
        plan=_plan(context, chosen, reasons),
        chosen=chosen,
        layers=_choices(options.by_layer, found.picks, chosen),
        explored=tuple(evaluator.explored),
        quality=quality,
        latency=found.timed,
        predicted_ratio=found.predicted,
        failures=found.failures,
        predictor=predictor,
    )


def build_problem(context: SearchContext, options: Options, evaluator: Evaluator) -> Problem:
    """Return all options in numbers; damages from how a probe of each layer carries through.

    Parameters
    ----------
    context : SearchContext
        What the search works with.
    options : Options
        Some for every layer.
    evaluator : Evaluator
        Measures the probes.
    """
    specs = {layer.name: layer.spec for layer in context.layers}
    original = find_layers(context.original, input_shapes=context.input_shapes)
    gone = freed(original, tuple(options.by_layer))
    damage, latency, macs, params, sizes = [], [], [], [], []
    for done, (name, tried) in enumerate(options.by_layer.items()):
        context.progress("probing layers", done, len(options.by_layer))
        damage.append(_damages(context, evaluator, name, tried))
        spec = specs[name]
        assert spec is not None
        latency.append(np.array([0.0, *(o.timed.seconds for o in tried)]))
        macs.append(np.array([0.0, *(o.macs - (spec.macs or 0) for o in tried)]))
        params.append(np.array([0.0, *(float(o.params - gone.params[done]) for o in tried)]))
        sizes.append(np.array([0.0, *(float(o.added_bytes - gone.bytes[done]) for o in tried)]))
    assert options.in_network is not None
    return Problem(
        damage=tuple(damage),
        latency=tuple(latency),
        macs=tuple(macs),
        params=tuple(params),
        bytes=tuple(sizes),
        base_latency=options.in_network.original,
        base_macs=float(sum(layer.macs or 0 for layer in original)),
        base_params=float(gone.base_params),
        base_bytes=float(serialised_size(context.original)),
        shared_params=gone.shared_params,
        shared_bytes=gone.shared_bytes,
        saved_latency=options.in_network.original - options.in_network.bare,
        conflicts=options.conflicts,
    )


def _damages(
    context: SearchContext, evaluator: Evaluator, name: str, tried: Sequence[Option]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the predicted noise of each option, as that of a probe carries through."""
    errors = np.array([0.0, *(option.error for option in tried)])
    inexact = [option for option in tried if option.error > 0]
    away = [abs(np.log(max(o.error, 1e-9) / context.settings.probe_error)) for o in inexact]
    for place in np.argsort(away, kind="stable"):
        probe = evaluator.candidates({name: inexact[place]})
        if probe:
            carried = evaluator.noise(probe) / max(probe[name].fit.error ** 2, 1e-12)
            return np.asarray(carried * errors**2)
    return errors


def _tasks(
    context: SearchContext, space: SearchSpace, reasons: dict[str, str]
) -> dict[str, LayerTask]:
    """Return what to fit; reasons are added for layers that the data do not suit."""
    fitted = {name: found for name, found in space.items() if found[1]}
    options = context.options
    statistics = calibrate(
        context.normalised,
        context.samples.calibration,
        list(fitted),
        sampling=Sampling(seed=options.seed),
        engine=options.engine if options.jobs == 1 else options.engine.with_threads(None),
        cache_dir=context.store.folder / "statistics",
        progress=context.progress,
    )
    reasons |= statistics.refused
    editor = GraphEditor(context.normalised)
    return {
        name: LayerTask(
            name=name,
            weight=layer_weight(editor, layer),
            bias=layer_bias(editor, layer),
            group=layer.spec.group if layer.spec else 1,
            statistics=statistics,
            digest=statistics.entry(name),
            schemes=schemes,
        )
        for name, (layer, schemes) in fitted.items()
        if name not in statistics.refused
    }


def _fitted_first(
    context: SearchContext, tasks: Mapping[str, LayerTask]
) -> dict[str, tuple[Scheme, ...]]:
    """Return the schemes of every layer whose fits predict what the others lose."""
    found = {}
    for layer in context.layers:
        if layer.name in tasks:
            assert layer.spec is not None
            schemes = tasks[layer.name].schemes
            found[layer.name] = fitted_first(schemes, layer.spec, context.settings)
    return found


def _nothing(context: SearchContext, reasons: Mapping[str, str], why: str) -> SearchResult:
    """Return the original as what the search found."""
    same = Quality(0.0, SQNR_CAP_DB, None, None, 0)
    plan = _plan(context, {}, {**{layer.name: why for layer in context.layers}, **reasons})
    return SearchResult(plan, {}, (), (), same, Timed(0.0, 1.0, 1.0, 1.0), 1.0, (why,))


def _plan(context: SearchContext, chosen: Chosen, reasons: Mapping[str, str]) -> Plan:
    """Return a decision for every layer."""
    decisions = []
    for layer in context.layers:
        if (candidate := chosen.get(layer.name)) is not None:
            # Where another form was possible, replaying the plan must not depend on a default.
            form = None if tuple(context.forms) == (STANDARD,) else candidate.form.name
            decisions.append(Decision(layer.name, candidate.fit.scheme, form=form))
        else:
            why = reasons.get(layer.name, "within the budget it is best left as it is")
            decisions.append(Decision(layer.name, None, why))
    return Plan(tuple(decisions))


def _choices(
    options: Mapping[str, Sequence[Option]], picks: Picks, chosen: Chosen
) -> tuple[LayerChoice, ...]:
    """Return the candidates that were chosen, with their latencies beside the layers."""
    timed = {
        name: tried[pick - 1].timed
        for (name, tried), pick in zip(options.items(), picks, strict=True)
        if pick
    }
    return tuple(
        LayerChoice(
            name=name,
            scheme=candidate.spec,
            error=candidate.fit.error,
            ratio=timed[name].ratio,
            low=timed[name].low,
            high=timed[name].high,
        )
        for name, candidate in chosen.items()
    )
