"""From a budget to the fastest model within it, by measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx_lowrank.bounds import SQNR_CAP_DB
from onnx_lowrank.errors import PlanError
from onnx_lowrank.fitting.parallel import LayerTask
from onnx_lowrank.fitting.statistics import Sampling, calibrate
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import layer_bias, layer_weight
from onnx_lowrank.measure.remembered import RememberedModel
from onnx_lowrank.planning.latency import Timed
from onnx_lowrank.planning.plan import Decision, Plan
from onnx_lowrank.rewriting.forms import STANDARD
from onnx_lowrank.schemes import Scheme
from onnx_lowrank.search.build_problem import build_problem
from onnx_lowrank.search.candidate import Chosen, Option
from onnx_lowrank.search.chosen_quality import ChosenQuality
from onnx_lowrank.search.context import SearchContext
from onnx_lowrank.search.error_curve import fitted_first
from onnx_lowrank.search.evaluator import Evaluator
from onnx_lowrank.search.frontier import timed_on_frontier
from onnx_lowrank.search.layer_fits import LayerFits
from onnx_lowrank.search.options import Options, find_options
from onnx_lowrank.search.probes import carried_noise
from onnx_lowrank.search.problem import Picks, Problem
from onnx_lowrank.search.quality import Quality
from onnx_lowrank.search.quality_meter import QualityMeter
from onnx_lowrank.search.result import LayerChoice, SearchResult
from onnx_lowrank.search.search_space import search_space
from onnx_lowrank.search.strategies import choose_picks
from onnx_lowrank.search.timed_layers import TimedLayers, timed_layers


def search(context: SearchContext) -> SearchResult:
    """Find the plan of least cost within a budget.

    What layers could become is timed roughly, in all forms; what may pay is fitted to the samples'
    inputs; a knapsack chooses, of which the best are timed precisely, and whole models correct it.

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
            RememberedModel(context.original, context.store),
            context.samples.search,
            score=context.score,
            engine=context.options.engine.with_threads(None),
        )
    if context.budget.max_drop is not None and not meter.has_drop:
        raise PlanError(
            "max_drop needs one output with a score for each class, or a score of your own; "
            "give min_sqnr, or leave max_drop out"
        )
    with context.seconds.step("timing layers"):
        timed = timed_layers(context, space, reasons)
    if timed is None:
        return _nothing(context, reasons, "no layer has a candidate that is faster")
    if (why := _out_of_reach(context, timed)) is not None:
        return _nothing(context, reasons, why)
    with context.seconds.step("statistics"):
        tasks = _tasks(context, timed, reasons)
    fits = LayerFits(context, tasks)
    fits.make(_fitted_first(context, tasks))
    reasons |= fits.failed
    losses = ChosenQuality(context, meter)
    first = find_options(context, space, timed, fits)
    with context.seconds.step("probes"):
        carried = carried_noise(context, first.by_layer, fits, losses)

    def chooser(timed: TimedLayers) -> tuple[Options, Problem] | None:
        options = find_options(context, space, timed, fits)
        return (options, build_problem(context, options, carried)) if options.by_layer else None

    with context.seconds.step("timing layers"):
        chosen_from = timed_on_frontier(context, timed, chooser)
    if chosen_from is None:
        why = "no layer has a candidate that is measurably faster"
        return _nothing(context, reasons, why if tasks else "no layer can be approximated")
    options, problem = chosen_from
    evaluator = Evaluator(context, options.by_layer, fits, losses)
    with context.seconds.step("choosing"):
        found = choose_picks(context, evaluator, problem)
        if not any(found.picks):
            why = "within the budget every layer is best left as it is"
            return _nothing(context, reasons, "; ".join(found.failures) or why)
        latency = evaluator.latency(found.problem, found.picks, precisely=True)
        chosen, quality = evaluator.best(found.picks)
        if not chosen:
            return _nothing(context, reasons | fits.failed, "the fits of all chosen layers fail")
        predictor = losses.predictor(chosen)
    return SearchResult(
        plan=_plan(context, chosen, reasons),
        chosen=chosen,
        layers=_choices(options.by_layer, found.picks, chosen),
        explored=tuple(evaluator.explored),
        quality=quality,
        latency=latency,
        predicted_ratio=found.predicted,
        failures=found.failures,
        predictor=predictor,
    )


def _out_of_reach(context: SearchContext, timed: TimedLayers) -> str | None:
    """Return in a clause why no candidates can be fast enough, or None where some may be.

    The fewest operations that are tried of every layer are timed, whatever they lose.
    """
    least, settings = timed.least_ratio, context.settings
    says = f"with the fewest operations tried of every layer it would take {least:.2f} of the time"
    if least > 1 - settings.least_gain:
        return f"nothing pays here: {says}"
    wanted = context.budget.min_speedup
    if wanted is not None and least * wanted > settings.clearly_slower:
        return f"{wanted:g} times as fast is out of reach: {says}"
    return None


def _tasks(
    context: SearchContext, timed: TimedLayers, reasons: dict[str, str]
) -> dict[str, LayerTask]:
    """Return what to fit; reasons are added for layers that the data do not suit."""
    fitted = {name: (x.layer, x.schemes) for name, x in timed.layers.items() if x.schemes}
    options = context.options
    statistics = calibrate(
        context.normalised,
        context.samples.calibration,
        list(fitted),
        sampling=Sampling(positions=context.settings.positions, seed=options.seed),
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
