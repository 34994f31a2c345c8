"""Which candidate each layer gets: a knapsack, corrected by measurements of whole models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from onnx_lowrank.calibrate.jobs import Survey
from onnx_lowrank.fit_model import Calibration, fit_model
from onnx_lowrank.graph.digest import model_digest
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
from onnx_lowrank.searching.assembly import Fits
from onnx_lowrank.searching.fits import FORMAT, LayerProblem, from_arrays, to_arrays
from onnx_lowrank.searching.quality import Quality, QualityMeter
from onnx_lowrank.searching.result import Explored, LayerChoice, SearchResult
from onnx_lowrank.store import key_of

if TYPE_CHECKING:
    from onnx_lowrank.searching.run import Search

PROBE_ERROR = 0.15  # relative error of the candidate that shows how a layer's errors carry through
MODEL_SECONDS = 4.0
MAX_CORRECTIONS = 4  # of predicted latencies by that of the whole model
NEAR_SPEEDUP = 1.04  # a model that much faster than asked for is fast enough, and not too fast
BYTES_PER_PARAM = 4


@dataclass(frozen=True, eq=False)
class Option:
    """A candidate that was fitted and timed."""

    fit: LayerFit
    timed: Timed
    macs: int
    params: int


@dataclass(frozen=True)
class _Verdict:
    """A measured model, and whether it is within the bounds on quality."""

    quality: Quality
    passed: bool


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
        self._meter = meter
        self._explored: list[Explored] = []
        self._latencies: dict[Picks, Timed] = {}
        digests = Survey.of(search.selection)
        self._head = key_of(
            *("quality", model_digest(search.original), digests.digest, digests.labels),
            *(meter.digest, search.portable),
        )
        self._digests = {name: problem.digest for name, problem in problems.items()}

    def result(self, reasons: Mapping[str, str]) -> SearchResult:
        """Choose, measure and correct; `reasons` say why layers without a candidate are kept."""
        budget = self._search.budget
        problem = self._problem()
        wanted = budget.min_speedup
        reached: list[tuple[Timed, float, Picks, list[str]]] = []
        for _ in range(MAX_CORRECTIONS):
            problem, picks, failures = self._choose(problem, self._targets(problem))
            timed, predicted = self._timed(problem, picks)
            reached.append((timed, predicted, picks, failures))
            if wanted is None or failures or 1 <= 1 / (wanted * timed.ratio) <= NEAR_SPEEDUP:
                break
            problem = self._corrected(problem, picks)
        if wanted is not None:
            # The slowest that is fast enough loses least; where none is, the fastest comes nearest.
            enough = [each for each in reached if each[0].ratio * wanted <= 1]
            timed, predicted, picks, failures = (
                max(enough, key=lambda each: each[0].ratio)
                if enough
                else min(reached, key=lambda each: each[0].ratio)
            )
            if not enough:
                failures.append(f"it is {1 / timed.ratio:.2f} times as fast, not {wanted:g} times")
        fits, quality = self._best(picks)
        return SearchResult(
            plan=self._plan(picks, reasons),
            fits=fits,
            layers=self._choices(picks),
            explored=tuple(self._explored),
            quality=quality,
            latency=timed,
            predicted_ratio=predicted,
            failures=tuple(failures),
            outlook=self._meter.outlook(self._assemble(fits), budget),
        )

    def _corrected(self, problem: Problem, picks: Picks) -> Problem:
        """Return the problem with what layers save scaled to what the whole model saves.

        Single layers are timed with the change of layout at their ends, which neighbours share.
        """
        timed, predicted = self._timed(problem, picks)
        unasked = problem.saved_latency / problem.base_latency
        saved = 1 - predicted - unasked
        if saved <= 0:
            return problem
        scale = max(1 - timed.ratio - unasked, 0.0) / saved
        return replace(problem, latency=tuple(scale * values for values in problem.latency))

    def _timed(self, problem: Problem, picks: Picks) -> tuple[Timed, float]:
        """Return a whole model's latency, measured once, and the ratio that was predicted."""
        predicted = problem.predicted_latency(picks) / problem.base_latency
        if picks not in self._latencies:
            search = self._search
            search.progress("timing the whole model", len(self._latencies), MAX_CORRECTIONS)
            models = [search.original, self._assemble(self._fits(picks))]
            self._latencies[picks] = self._time_models(models, predicted)[1]
        return self._latencies[picks], predicted

    def _choose(self, problem: Problem, targets: Targets) -> tuple[Problem, Picks, list[str]]:
        """Return the picks that meet targets and budget, or the nearest and what they miss.

        The problem comes back too, its latencies corrected by those of whole models.
        """
        budget = self._search.budget
        start = least_damage(problem, targets)
        if start is None:
            smallest = tuple(int(v.argmin()) for v in problem.costs(budget.objective))
            return (
                problem,
                smallest,
                ["the targets cannot be met by any candidates; this is the nearest"],
            )
        if not budget.limits_quality:
            return problem, start, []
        if any(start) and not self._measure(problem, start).passed:
            return problem, start, ["what the targets ask for loses more than the budget allows"]
        first = widen(
            problem,
            budget.objective,
            targets,
            lambda picks: self._measure(problem, picks),
            start=start,
        )
        assert first.best is not None
        problem = self._corrected(problem, first.best)
        return problem, first.best, []

    def _best(self, picks: Picks) -> tuple[Fits, Quality]:
        """Return the better of two fits of some picks.

        One is to the layers' inputs in the original, the other, layer by layer from below, to
        those in the compressed network.
        """
        both = [self._fits(picks), self._refits(picks)]
        seen = [self._quality(fits) for fits in both]
        passed = [quality.within(self._search.budget) for quality in seen]
        best = min((0, 1), key=lambda kind: (not passed[kind], seen[kind].noise))
        return both[best], seen[best]

    def _problem(self) -> Problem:
        """Return all options in numbers; damages from how a probe of each layer carries through."""
        search = self._search
        specs = {layer.name: layer.spec for layer in search.layers}
        damage, latency, macs, params = [], [], [], []
        for done, (name, options) in enumerate(self._options.items()):
            search.progress("probing layers", done, len(self._options))
            errors = np.array([option.fit.error for option in options])
            probe = options[int(np.abs(np.log(np.maximum(errors, 1e-9) / PROBE_ERROR)).argmin())]
            noise = self._noise({name: probe.fit})
            carried = noise / max(probe.fit.error**2, 1e-12)
            spec = specs[name]
            assert spec is not None
            damage.append(np.concatenate(([0.0], carried * errors**2)))
            latency.append(np.array([0.0, *(o.timed.seconds for o in options)]))
            macs.append(np.array([0.0, *(o.macs - (spec.macs or 0) for o in options)]))
            params.append(np.array([0.0, *(float(o.params - spec.params) for o in options)]))
        known = [layer.spec for layer in search.layers if layer.spec is not None]
        return Problem(
            damage=tuple(damage),
            latency=tuple(latency),
            macs=tuple(macs),
            params=tuple(params),
            base_latency=self._base,
            base_macs=float(sum(spec.macs or 0 for spec in known)),
            base_params=float(sum(spec.params for spec in known)),
            saved_latency=self._saved,
        )

    def _targets(self, problem: Problem) -> Targets:
        budget = self._search.budget
        params = None if budget.params is None else budget.params * problem.base_params
        if budget.size_mb is not None:
            rest = self._search.original.ByteSize() - BYTES_PER_PARAM * problem.base_params
            most = (1e6 * budget.size_mb - rest) / BYTES_PER_PARAM
            params = most if params is None else min(params, most)
        speedup = budget.min_speedup
        return Targets(
            latency=None if speedup is None else problem.base_latency / speedup,
            macs=None if budget.macs is None else budget.macs * problem.base_macs,
            params=params,
        )

    def _measure(self, problem: Problem, picks: Picks) -> _Verdict:
        self._search.progress("measuring a whole model", len(self._explored), 16)
        quality = self._quality(self._fits(picks))
        passed = quality.within(self._search.budget)
        self._explored.append(
            Explored(
                predicted_ratio=problem.predicted_latency(picks) / problem.base_latency,
                predicted_noise=problem.predicted_damage(picks),
                quality=quality,
                passed=passed,
            )
        )
        return _Verdict(quality, passed)

    def _fits(self, picks: Picks) -> Fits:
        return {
            name: self._options[name][pick - 1].fit
            for name, pick in zip(self._names, picks, strict=True)
            if pick
        }

    def _refits(self, picks: Picks) -> Fits:
        search, fits = self._search, self._fits(picks)
        parts = [f"{name} {fit.scheme.spec} {self._digests[name]}" for name, fit in fits.items()]
        head = key_of("asymmetric, from symmetric", FORMAT, search.seed, *parts)
        stored = {name: search.store.arrays(key_of(head, name)) for name in fits}
        if any(arrays is None for arrays in stored.values()):
            found = fit_model(
                search.normalised,
                self._plan(picks, {}),
                calibration=Calibration(
                    search.calibration, asymmetric=True, provider=search.stopwatch.provider
                ),
                seed=search.seed,
                starts={name: fit.factors for name, fit in fits.items()},
                progress=search.progress,
            )
            for name, fit in found.items():
                search.store.put_arrays(key_of(head, name), to_arrays(fit))
            return found
        return {
            name: from_arrays(name, fits[name].scheme, arrays)
            for name, arrays in stored.items()
            if arrays is not None
        }

    def _quality(self, fits: Fits) -> Quality:
        key = key_of(self._head, *(_fit_digest(fit) for fit in fits.values()))
        stored = self._search.store.data(key)
        if stored is not None:
            return Quality.from_dict(stored)
        quality = self._meter.measure(self._assemble(fits))
        self._search.store.put_data(key, quality.to_dict())
        return quality

    def _noise(self, fits: Fits) -> float:
        key = key_of("probe", self._head, *(_fit_digest(fit) for fit in fits.values()))
        stored = self._search.store.data(key)
        if stored is None:
            stored = self._meter.noise(self._assemble(fits))
            self._search.store.put_data(key, stored)
        return float(stored)

    def _assemble(self, fits: Fits) -> onnx.ModelProto:
        return self._search.assemble(fits)

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


def _fit_digest(fit: LayerFit) -> bytes:
    arrays = to_arrays(fit)
    parts = [value.tobytes() for name, value in sorted(arrays.items()) if name != "figures"]
    return key_of(fit.layer, fit.scheme.spec, *parts).encode()
