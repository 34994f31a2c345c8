"""Which candidate each layer gets: a knapsack, corrected by measurements of whole models.

Two strategies: meet what must be gained at the least loss; then spend the loss that is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx_lowrank.planning.latency import Timed
from onnx_lowrank.search.context import SearchContext
from onnx_lowrank.search.evaluator import Evaluator
from onnx_lowrank.search.problem import Picks, Problem, Targets, fastest, least_damage
from onnx_lowrank.search.spending import Damages, Outcome, spend_damage


@dataclass(frozen=True)
class Reached:
    """Picks that were timed as a whole model.

    Attributes
    ----------
    problem : Problem
        What they were chosen from.
    picks : tuple of int
        The picks.
    timed : Timed
        The whole model's latency.
    failures : tuple of str
        Which bounds they miss, a sentence each.
    """

    problem: Problem
    picks: Picks
    timed: Timed
    failures: tuple[str, ...] = ()

    @property
    def predicted(self) -> float:
        """The latency over the original's, as it was predicted when they were chosen."""
        return self.problem.predicted_ratio(self.picks)


def choose_picks(context: SearchContext, evaluator: Evaluator, problem: Problem) -> Reached:
    """Return the picks of least cost within the budget, or the nearest.

    Parameters
    ----------
    context : SearchContext
        What the search works with.
    evaluator : Evaluator
        Measures whole models.
    problem : Problem
        The candidates in numbers.
    """
    corrected = _meet_speed if context.budget.min_speedup is not None else _match_latency
    found = corrected(context, evaluator, problem)
    return _spend_refits(context, evaluator, found) if context.budget.limits_quality else found


def _meet_speed(context: SearchContext, evaluator: Evaluator, problem: Problem) -> Reached:
    """Choose until the whole model is as fast as asked for, and little faster."""
    wanted = context.budget.min_speedup
    assert wanted is not None
    reached: list[Reached] = []
    for _ in range(context.settings.most_corrections):
        problem, picks, failures = _choose(context, evaluator, problem, reached)
        if picks in [each.picks for each in reached]:
            break
        timed = evaluator.latency(problem, picks)
        near = 1 <= 1 / (wanted * timed.ratio) <= context.settings.fast_enough
        if failures or near:
            timed = evaluator.latency(problem, picks, precisely=True)
        reached.append(Reached(problem, picks, timed, failures))
        if failures or (near and timed.ratio * wanted <= 1):
            break
        problem = _as_measured(evaluator, problem, picks)
    # The slowest that is fast enough loses least; where none is, the fastest comes nearest.
    for each in sorted(reached, key=lambda each: (bool(each.failures), -each.timed.ratio)):
        if each.timed.ratio * wanted <= 1:
            timed = evaluator.latency(each.problem, each.picks, precisely=True)
            if timed.ratio * wanted <= 1:
                return replace(each, timed=timed)
    # What was fast enough in turns was not, timed precisely: once more by what that says.
    found = min(reached, key=lambda each: evaluator.latency(each.problem, each.picks).ratio)
    if not found.failures:
        problem = _as_measured(evaluator, found.problem, found.picks)
        problem, picks, failures = _choose(context, evaluator, problem, reached)
        if not failures:
            found = Reached(problem, picks, evaluator.latency(problem, picks))
    timed = evaluator.latency(found.problem, found.picks, precisely=True)
    if timed.ratio * wanted <= 1:
        return replace(found, timed=timed)
    slow = f"it is {1 / timed.ratio:.2f} times as fast, not {wanted:g} times"
    return replace(found, timed=timed, failures=(*found.failures, slow))


def _match_latency(context: SearchContext, evaluator: Evaluator, problem: Problem) -> Reached:
    """Choose until the whole model's latency is about what was predicted."""
    reached: list[Reached] = []
    for _ in range(context.settings.most_corrections):
        problem, picks, failures = _choose(context, evaluator, problem, reached)
        again = picks in [each.picks for each in reached]
        reached.append(Reached(problem, picks, evaluator.latency(problem, picks), failures))
        found = reached[-1]
        if failures:
            break
        off = abs(found.timed.ratio / found.predicted - 1)
        if again or off <= context.settings.off or context.budget.objective != "latency":
            break
        problem = _in_network(context, evaluator, problem, picks)
    # Of the same picks, the last are predicted best.
    good = [each for each in reversed(reached) if not each.failures]
    return min(good, key=lambda each: each.timed.ratio) if good else reached[-1]


def _choose(
    context: SearchContext, evaluator: Evaluator, problem: Problem, reached: Sequence[Reached]
) -> tuple[Problem, Picks, tuple[str, ...]]:
    """Return picks within targets and budget, with the file's size as it is built.

    What was reached before tells how much damage to try first. The sum of candidates leaves out
    some bytes of the graph: where they decide, they are added.
    """
    size_mb = context.budget.size_mb
    allowed = problem.predicted_damage(reached[-1].picks) if reached else 0.0
    for _ in range(context.settings.most_corrections):
        picks, failures = _spend_loss(context, evaluator, problem, allowed)
        if size_mb is None or failures:
            break
        size = context.file_bytes(evaluator.chosen(picks))
        if size <= 1e6 * size_mb:
            break
        more = size - problem.predicted_bytes(picks)
        problem = replace(problem, base_bytes=problem.base_bytes + max(more, 1.0))
    return problem, picks, failures


def _spend_loss(
    context: SearchContext, evaluator: Evaluator, problem: Problem, allowed: float
) -> tuple[Picks, tuple[str, ...]]:
    """Return the picks of least loss that meet the targets, or of least cost within the loss.

    Or the nearest, and what they miss. `allowed` is a damage that was within the loss before, or 0.
    """
    budget = context.budget
    targets = Targets.of(budget, problem)
    start = least_damage(problem, targets)
    if start is None:
        smallest = tuple(int(v.argmin()) for v in problem.costs(budget.objective))
        return smallest, ("the targets cannot be met by any candidates; this is the nearest",)
    if not budget.limits_quality:
        return start, ()
    if not any(start) and budget.objective == "latency":
        least = context.settings.least_gain
        worth = replace(targets, latency=(1 - least) * problem.base_latency)
        smallest_gain = least_damage(problem, worth)
        if smallest_gain is None:
            return start, (f"nothing pays here: no candidates save {100 * least:g} % of the time",)
        if not evaluator.accepts(problem, smallest_gain):
            if evaluator.accepts_refitted(problem, smallest_gain):
                return smallest_gain, ()
            why = f"what saves {100 * least:g} % of the time loses more than the budget allows"
            return start, (f"nothing pays here: {why}",)
        start = smallest_gain
    elif any(start) and not evaluator.accepts(problem, start):
        missed = ("what the targets ask for loses more than the budget allows",)
        return start, () if evaluator.accepts_refitted(problem, start) else missed
    damages = Damages.of(problem, start, context.settings)
    found = spend_damage(
        lambda damage: fastest(problem, budget.objective, targets, damage),
        lambda picks: _outcome(evaluator, problem, picks),
        replace(damages, first=allowed) if allowed > damages.start else damages,
        settings=context.settings,
    )
    return found, ()


def _outcome(evaluator: Evaluator, problem: Problem, picks: Picks) -> Outcome:
    """Measure the fits of some picks."""
    accepted = evaluator.accepts(problem, picks)
    room = evaluator.losses.room(evaluator.losses.quality(evaluator.chosen(picks)))
    return Outcome(accepted, None if room is None else room * problem.predicted_damage(picks))


def _spend_refits(context: SearchContext, evaluator: Evaluator, found: Reached) -> Reached:
    """Return what only refits keep within the budget, where that is faster.

    Picks were chosen by fits to the inputs in the original. Refits lose less, the more so the more
    layers are replaced: as much more damage may be allowed. As the search now goes to the bound,
    the verdict must be likely to agree.
    """
    budget, settings, picks = context.budget, context.settings, found.picks
    if found.failures or not any(picks):
        return found
    problem = _as_measured(evaluator, found.problem, picks)
    before = evaluator.losses.quality(evaluator.chosen(picks))
    chosen, quality = evaluator.best(picks)
    if quality != before:
        evaluator.note(problem, picks, quality)
    if evaluator.losses.chance(chosen) < settings.refit_probability:
        return found
    more = before.noise / max(quality.noise, np.finfo(float).tiny)
    if budget.min_sqnr_db is not None:
        more = min(more, 10 ** ((quality.sqnr_db - budget.min_sqnr_db) / 10))

    def refitted(picks: Picks) -> Outcome:
        passed = evaluator.accepts_refitted(problem, picks)
        chance = evaluator.losses.chance(evaluator.best(picks)[0]) if passed else 0.0
        return Outcome(chance >= settings.refit_probability, None)

    targets = Targets.of(budget, problem)
    damages = Damages.of(problem, picks, settings)
    spent = spend_damage(
        lambda damage: fastest(problem, budget.objective, targets, damage),
        refitted,
        replace(damages, first=max(more, settings.close) * damages.start or damages.first),
        settings=replace(settings, most_evaluations=settings.most_refits),
    )
    wanted = budget.min_speedup
    timed = evaluator.latency(problem, spent, precisely=wanted is not None)
    slow = wanted is not None and timed.ratio * wanted > 1
    if slow or (budget.objective == "latency" and timed.ratio >= found.timed.ratio):
        return found
    return Reached(problem, spent, timed, found.failures)


def _as_measured(evaluator: Evaluator, problem: Problem, picks: Picks) -> Problem:
    """Return the problem with what layers save scaled to what the whole model saves."""
    regardless = problem.saved_latency / problem.base_latency  # whatever is chosen
    saved = 1 - problem.predicted_ratio(picks) - regardless
    if saved <= 0:
        return problem
    measured = 1 - evaluator.latency(problem, picks).ratio - regardless
    return problem.scaled(max(measured, 0.0) / saved)


def _in_network(
    context: SearchContext, evaluator: Evaluator, problem: Problem, picks: Picks
) -> Problem:
    """Return the problem with each replaced layer's latencies as in the network around it.

    Alone, a layer has its weights in the cache. The picked candidate is timed in the network; what
    it takes longer there is added to all candidates of the layer that have its form.
    """
    base, bare = problem.base_latency, context.assemble({})
    latency, saved = list(problem.latency), [problem.saved_latency]
    chosen = evaluator.chosen(picks)
    for done, (name, candidate) in enumerate(chosen.items()):
        context.progress("timing layers in the network", done, len(chosen))
        layer = evaluator.names.index(name)
        alone = tuple(p if place == layer else 0 for place, p in enumerate(picks))
        # One at a time: sessions of a large network for all layers would not fit in memory.
        models = [bare, context.assemble({name: candidate})]
        predicted = [problem.predicted_ratio(each) for each in (problem.unreplaced, alone)]
        kept, replaced = (base * each.ratio for each in evaluator.time(models, predicted))
        around = replaced - kept - base * (predicted[1] - predicted[0])
        same = evaluator.of_form(name, candidate.form)
        latency[layer] = latency[layer] + around * same
        saved.append(base - kept)
    return replace(
        problem, latency=tuple(latency), saved_latency=float(np.median(saved[1:] or saved))
    )
