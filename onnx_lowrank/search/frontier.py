"""Times precisely what a search may choose: candidates on the frontier of loss and latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from onnx_lowrank.planning.latency import Timed
from onnx_lowrank.search.context import SearchContext
from onnx_lowrank.search.options import Options
from onnx_lowrank.search.problem import Picks, Problem, Targets, fastest, least_damage
from onnx_lowrank.search.timed_layers import TimedLayer, TimedLayers


def timed_on_frontier(
    context: SearchContext,
    timed: TimedLayers,
    chooser: Callable[[TimedLayers], tuple[Options, Problem] | None],
) -> tuple[Options, Problem] | None:
    """Return what to choose from, with precise latencies of what is best at some loss.

    The best by rough latencies are timed precisely, for at most `most_timings` turns or until they
    stay the best: what was only lucky in a rough timing is found out.

    Parameters
    ----------
    context : SearchContext
        What the search works with.
    timed : TimedLayers
        What candidates take, roughly.
    chooser : callable
        Gives what to choose from, or None where nothing pays.
    """
    precise: dict[str, dict[int, Timed]] = {name: {} for name in timed.layers}
    rough = timed
    for turn in range(context.settings.most_timings):
        found = chooser(timed)
        if found is None:
            return None
        options, problem = found
        wanted: dict[str, list[int]] = {}
        for name, place in _on_frontier(context, options, problem):
            if place not in precise[name]:
                wanted.setdefault(name, []).append(place)
        new = {}
        for done, (name, places) in enumerate(wanted.items()):
            context.progress(f"timing candidates, turn {turn + 1}", done, len(wanted))
            new[name] = context.latencies.precisely(rough.layers[name].group, places)
        if not any(new.values()):
            return found
        for name, each in new.items():
            precise[name] |= each
        timed = replace(rough, layers=_corrected(rough, precise))
    return chooser(timed)


def _corrected(
    rough: TimedLayers, precise: Mapping[str, Mapping[int, Timed]]
) -> dict[str, TimedLayer]:
    return {name: layer.corrected(precise[name]) for name, layer in rough.layers.items()}


def _on_frontier(
    context: SearchContext, options: Options, problem: Problem
) -> list[tuple[str, int]]:
    """Return what is chosen at several losses, as layers and places."""
    picks: list[Picks | None] = []
    settings, budget = context.settings, context.budget
    targets = Targets.of(budget, problem)
    if targets.latency is not None:
        picks += [
            least_damage(problem, replace(targets, latency=targets.latency / faster))
            for faster in settings.faster
        ]
    if budget.limits_quality:
        picks += [
            fastest(problem, budget.objective, targets, settings.first_damage * times)
            for times in settings.damages
        ]
    if not any(picks):
        picks = [least_damage(problem, replace(targets, latency=None))]
    tried = tuple(options.by_layer.items())
    return sorted(
        {
            (name, options[pick - 1].place)
            for each in picks
            if each is not None
            for (name, options), pick in zip(tried, each, strict=True)
            if pick
        }
    )
