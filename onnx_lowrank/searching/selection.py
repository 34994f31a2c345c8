"""Which candidate each layer gets: a knapsack, corrected by measurements of whole models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from onnx_lowrank.graph.io import serialised_size
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.planning.fit import LayerFit
from onnx_lowrank.planning.latency import SavedLatencies, Timed
from onnx_lowrank.planning.plan import Decision, Plan
from onnx_lowrank.planning.search import (
    Picks,
    Problem,
    Targets,
    least_damage,
    widen,
)
from onnx_lowrank.searching.fits import LayerProblem
from onnx_lowrank.searching.quality import SURE, Quality, QualityMeter
from onnx_lowrank.searching.result import Explored, LayerChoice, SearchResult
from onnx_lowrank.searching.sizes import freed
from onnx_lowrank.searching.whole import WholeModels

if TYPE_CHECKING:
    from onnx_lowrank.searching.run import Search

PROBE_ERROR = 0.15  # relative error of the candidate that shows how a layer's errors carry through
MODEL_SECONDS = 4.0
MAX_REFITS = 3  # of whole models: each takes a minute or more of a large network
MAX_CORRECTIONS = 4  # of predicted latencies by that of the whole model
FORESEEN = 0.1  # a whole model's latency off by more shows that single layers' times mislead
NEAR_SPEEDUP = 1.04  # a model that much faster than asked for is fast enough, and not too fast


@dataclass(frozen=True, eq=False)
class Option:
    """A candidate that was fitted and timed."""

    fit: LayerFit
    timed: Timed
    macs: int
    params: int
    added_bytes: int = 0  # to the file of a model that no longer stores the layer's own weight


@dataclass(frozen=True)
class _Verdict:
    """Whether a measured model is within the bounds on quality."""

    passed: bool


@dataclass(frozen=True)
class _Reached:
    """Picks, what they were chosen from, the whole model's latency and the ratio predicted."""

    problem: Problem
    picks: Picks
    timed: Timed
    predicted: float
    failures: list[str]


class Selection:
    """The part of a search that looks at whole models: which candidate each layer gets."""

    def __init__(
        self,
        search: Search,
        base: float,
        saved: float,
        options: Mapping[str, tuple[Option, ...]],
        problems: Mapping[str, LayerProblem],
        meter: QualityMeter,
    ) -> None:
        self._search = search
        self._base = base
        self._saved = saved
        self._options = options
        self._names = tuple(options)
        fits = {name: [option.fit for option in each] for name, each in options.items()}
        self._models = WholeModels(search, fits, problems, meter)
        self._explored: list[Explored] = []
        self._latencies: dict[Picks, Timed] = {}

    def result(self, reasons: Mapping[str, str]) -> SearchResult:
        """Choose, measure and correct; `reasons` say why layers without a candidate are kept."""
        budget = self._search.budget
        problem = self._problem()
        wanted = budget.min_speedup
        reached: list[_Reached] = []
        for _ in range(MAX_CORRECTIONS):
            problem, picks, failures = self._choose_by_size(problem)
            again = picks in [each.picks for each in reached]
            if again and wanted is not None:
                break
            timed = self._timed(problem, picks)
            reached.append(
                _Reached(problem, picks, timed, problem.predicted_ratio(picks), failures)
            )
            if failures:
                break
            if wanted is not None:
                if 1 <= 1 / (wanted * timed.ratio) <= NEAR_SPEEDUP:
                    break
                problem = self._corrected(problem, picks)
            else:
                off = abs(timed.ratio / reached[-1].predicted - 1) > FORESEEN
                if again or not off or budget.objective != "latency":
                    break
                problem = self._in_context(problem, picks)
        found = reached[-1]
        if wanted is not None:
            # The slowest that is fast enough loses least; where none is, the fastest comes nearest.
            enough = [each for each in reached if each.timed.ratio * wanted <= 1]
            found = (
                max(enough, key=lambda each: each.timed.ratio)
                if enough
                else min(reached, key=lambda each: each.timed.ratio)
            )
            if not enough:
                ratio = found.timed.ratio
                found.failures.append(f"it is {1 / ratio:.2f} times as fast, not {wanted:g} times")
        elif not found.failures:  # of the same picks, the last are foretold best
            found = min(reversed(reached), key=lambda each: each.timed.ratio)
        if budget.limits_quality:
            found = self._widened(found)
        fits, quality = self._models.best(found.picks)
        return SearchResult(
            plan=self._plan(found.picks, reasons),
            fits=fits,
            layers=self._choices(found.picks),
            explored=tuple(self._explored),
            quality=quality,
            latency=found.timed,
            predicted_ratio=found.predicted,
            failures=tuple(found.failures),
            outlook=self._models.outlook(fits),
        )

    def _widened(self, found: _Reached) -> _Reached:
        """Return what only refits keep within the budget, where that is faster.

        Picks were chosen by fits to the inputs in the original. Refits lose less, the more so the
        more layers are replaced: as much more damage may be allowed. As the search now goes to the
        bound, samples not seen must be likely to agree.
        """
        budget, picks = self._search.budget, found.picks
        if found.failures or not any(picks):
            return found
        problem = self._corrected(found.problem, picks)
        before = self._models.quality(self._models.fits(picks))
        fits, quality = self._models.best(picks)
        if quality != before:
            self._record(problem, picks, quality)
        if self._models.chance(fits) < SURE:
            return found
        more = before.noise / max(quality.noise, np.finfo(float).tiny)
        if budget.min_sqnr_db is not None:
            more = min(more, 10 ** ((quality.sqnr_db - budget.min_sqnr_db) / 10))

        def measure(picks: Picks) -> _Verdict:
            passed = self._measure_refits(problem, picks).passed
            return _Verdict(passed and self._models.chance(self._models.best(picks)[0]) >= SURE)

        wider = widen(
            problem,
            budget.objective,
            self._targets(problem),
            measure,
            start=picks,
            first=more * problem.predicted_damage(picks),
            evaluations=MAX_REFITS,
        ).best
        assert wider is not None
        timed = self._timed(problem, wider)
        slow = budget.min_speedup is not None and timed.ratio * budget.min_speedup > 1
        if slow or (budget.objective == "latency" and timed.ratio >= found.timed.ratio):
            return found
        return _Reached(problem, wider, timed, problem.predicted_ratio(wider), found.failures)

    def _corrected(self, problem: Problem, picks: Picks) -> Problem:
        """Return the problem with what layers save scaled to what the whole model saves.

        Single layers are timed with the change of layout at their ends, which neighbours share.
        """
        unasked = problem.saved_latency / problem.base_latency
        saved = 1 - problem.predicted_ratio(picks) - unasked
        if saved <= 0:
            return problem
        scale = max(1 - self._timed(problem, picks).ratio - unasked, 0.0) / saved
        return replace(problem, latency=tuple(scale * values for values in problem.latency))

    def _in_context(self, problem: Problem, picks: Picks) -> Problem:
        """Return the problem with each replaced layer's latencies as in the network around it.

        Alone, a layer has its weights in the cache, and changes of layout at its ends that its
        neighbours may share, or that its nodes force upon them. What the picked candidate shows of
        this, timed in the network, is added to all of the layer's.
        """
        search, base = self._search, problem.base_latency
        bare = search.assemble({})
        latency, saved = list(problem.latency), [problem.saved_latency]
        fits = self._models.fits(picks)
        for done, (name, fit) in enumerate(fits.items()):
            search.progress("timing layers in the network", done, len(fits))
            # One at a time: sessions of a large network for all layers would not fit in memory.
            models = [search.original, bare, search.assemble({name: fit})]
            _, kept, replaced = (base * each.ratio for each in self._time_models(models))
            layer = self._names.index(name)
            around = replaced - kept - latency[layer][picks[layer]]
            latency[layer] = np.concatenate(([0.0], latency[layer][1:] + around))
            saved.append(base - kept)
        return replace(
            problem, latency=tuple(latency), saved_latency=float(np.median(saved[1:] or saved))
        )

    def _timed(self, problem: Problem, picks: Picks) -> Timed:
        """Return a whole model's latency, measured once."""
        if picks not in self._latencies:
            search = self._search
            search.progress("timing the whole model", len(self._latencies), MAX_CORRECTIONS)
            models = [search.original, search.assemble(self._models.fits(picks))]
            predicted = problem.predicted_ratio(picks)
            self._latencies[picks] = self._time_models(models, predicted)[1]
        return self._latencies[picks]

    def _choose_by_size(self, problem: Problem) -> tuple[Problem, Picks, list[str]]:
        """Return what `_choose` does, and the problem with the size of the file as it is built.

        The sum of candidates leaves out some bytes of the graph: where they decide, they are added.
        """
        budget = self._search.budget
        for _ in range(MAX_CORRECTIONS):
            picks, failures = self._choose(problem, self._targets(problem))
            if budget.size_mb is None or failures:
                break
            size = self._search.file_bytes(self._models.fits(picks))
            if size <= 1e6 * budget.size_mb:
                break
            more = size - problem.predicted_bytes(picks)
            problem = replace(problem, base_bytes=problem.base_bytes + max(more, 1.0))
        return problem, picks, failures

    def _choose(self, problem: Problem, targets: Targets) -> tuple[Picks, list[str]]:
        """Return the picks that meet targets and budget, or the nearest and what they miss."""
        budget = self._search.budget
        start = least_damage(problem, targets)
        if start is None:
            smallest = tuple(int(v.argmin()) for v in problem.costs(budget.objective))
            return smallest, ["the targets cannot be met by any candidates; this is the nearest"]
        if not budget.limits_quality:
            return start, []
        if any(start) and not self._measure(problem, start).passed:
            missed = ["what the targets ask for loses more than the budget allows"]
            return start, [] if self._measure_refits(problem, start).passed else missed
        first = widen(
            problem,
            budget.objective,
            targets,
            lambda picks: self._measure(problem, picks),
            start=start,
        )
        assert first.best is not None
        return first.best, []

    def _problem(self) -> Problem:
        """Return all options in numbers; damages from how a probe of each layer carries through."""
        search = self._search
        specs = {layer.name: layer.spec for layer in search.layers}
        original = find_layers(search.original, input_shapes=search.input_shapes)
        gone = freed(original, self._names)
        damage, latency, macs, params, sizes = [], [], [], [], []
        for done, (name, options) in enumerate(self._options.items()):
            search.progress("probing layers", done, len(self._options))
            errors = np.array([option.fit.error for option in options])
            probe = options[int(np.abs(np.log(np.maximum(errors, 1e-9) / PROBE_ERROR)).argmin())]
            noise = self._models.noise({name: probe.fit})
            carried = noise / max(probe.fit.error**2, 1e-12)
            spec = specs[name]
            assert spec is not None
            damage.append(np.concatenate(([0.0], carried * errors**2)))
            latency.append(np.array([0.0, *(o.timed.seconds for o in options)]))
            macs.append(np.array([0.0, *(o.macs - (spec.macs or 0) for o in options)]))
            params.append(np.array([0.0, *(float(o.params - gone.params[done]) for o in options)]))
            sizes.append(
                np.array([0.0, *(float(o.added_bytes - gone.bytes[done]) for o in options)])
            )
        return Problem(
            damage=tuple(damage),
            latency=tuple(latency),
            macs=tuple(macs),
            params=tuple(params),
            bytes=tuple(sizes),
            base_latency=self._base,
            base_macs=float(sum(layer.macs or 0 for layer in original)),
            base_params=float(gone.base_params),
            base_bytes=float(serialised_size(search.original)),
            shared_params=gone.shared_params,
            shared_bytes=gone.shared_bytes,
            saved_latency=self._saved,
        )

    def _targets(self, problem: Problem) -> Targets:
        budget = self._search.budget
        speedup = budget.min_speedup
        return Targets(
            latency=None if speedup is None else problem.base_latency / speedup,
            macs=None if budget.macs is None else budget.macs * problem.base_macs,
            params=None if budget.params is None else budget.params * problem.base_params,
            bytes=None if budget.size_mb is None else 1e6 * budget.size_mb,
        )

    def _measure(self, problem: Problem, picks: Picks) -> _Verdict:
        self._search.progress("measuring a whole model", len(self._explored), 16)
        return self._record(problem, picks, self._models.quality(self._models.fits(picks)))

    def _measure_refits(self, problem: Problem, picks: Picks) -> _Verdict:
        self._search.progress("measuring a whole model", len(self._explored), 16)
        return self._record(problem, picks, self._models.best(picks)[1])

    def _record(self, problem: Problem, picks: Picks, quality: Quality) -> _Verdict:
        passed = self._models.passes(quality)
        self._explored.append(
            Explored(
                predicted_ratio=problem.predicted_ratio(picks),
                predicted_noise=problem.predicted_damage(picks),
                quality=quality,
                passed=passed,
            )
        )
        return _Verdict(passed)

    def _time_models(
        self, models: Sequence[onnx.ModelProto], predicted: float = 1.0
    ) -> list[Timed]:
        """Time whole models beside the first; with saved latencies, the prediction stands."""
        search = self._search
        if isinstance(search.table, SavedLatencies):
            return [search.table.forecast(ratio) for ratio in (1.0, predicted)][: len(models)]
        return search.stopwatch.compare(models, search.feeds(), seconds=MODEL_SECONDS)

    def _plan(self, picks: Picks, reasons: Mapping[str, str]) -> Plan:
        chosen = dict(zip(self._names, picks, strict=True))
        decisions = []
        for layer in self._search.layers:
            if pick := chosen.get(layer.name):
                scheme = self._options[layer.name][pick - 1].fit.scheme
                decisions.append(Decision(layer.name, scheme))
            else:
                why = reasons.get(layer.name, "within the budget it is best left as it is")
                decisions.append(Decision(layer.name, None, why))
        return Plan(tuple(decisions))

    def _choices(self, picks: Picks) -> tuple[LayerChoice, ...]:
        found = []
        for name, pick in zip(self._names, picks, strict=True):
            if pick:
                option = self._options[name][pick - 1]
                timed = option.timed
                found.append(
                    LayerChoice(
                        name=name,
                        scheme=option.fit.scheme.spec,
                        error=option.fit.error,
                        ratio=timed.ratio,
                        low=timed.low,
                        high=timed.high,
                    )
                )
        return tuple(found)
