"""From a budget to the fastest model within it, by measurement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.calibrate import calibrate
from onnx_lowrank.calibrate.jobs import Survey
from onnx_lowrank.data import Dataset
from onnx_lowrank.errors import PlanError
from onnx_lowrank.fit_model import Calibration, fit_model
from onnx_lowrank.graph.digest import model_digest
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import Layer, layer_bias, layer_weight
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.planning.fit import LayerFit
from onnx_lowrank.planning.latency import LatencyTable, SavedLatencies, Timed
from onnx_lowrank.planning.plan import Decision, Plan
from onnx_lowrank.planning.search import (
    Picks,
    Problem,
    Targets,
    least_damage,
    widen,
    worth_trying,
)
from onnx_lowrank.score import Score
from onnx_lowrank.searching.assembly import Fits, assemble
from onnx_lowrank.searching.cluster import fit_on_cluster
from onnx_lowrank.searching.fits import FORMAT, LayerProblem, fit_all, from_arrays, to_arrays
from onnx_lowrank.searching.ladder import Ladder, ladder
from onnx_lowrank.searching.quality import Quality, QualityMeter
from onnx_lowrank.searching.result import Explored, LayerChoice, SearchResult
from onnx_lowrank.searching.single_layer import replaced, single_layer_model, structure
from onnx_lowrank.searching.timing import Group, Stopwatch, time_layers
from onnx_lowrank.store import Store, key_of
from onnx_lowrank.workload import make_feeds

SLACK = 1.5  # how much faster per operation one structure may run than another
PROBE_ERROR = 0.15  # relative error of the candidate that shows how a layer's errors carry through
MODEL_SECONDS = 4.0
MAX_CORRECTIONS = 4  # of predicted latencies by that of the whole model
NEAR_SPEEDUP = 1.04  # a model that much faster than asked for is fast enough, and not too fast
BYTES_PER_PARAM = 4
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class _Option:
    """A candidate that was fitted and timed."""

    fit: LayerFit
    timed: Timed
    macs: int
    params: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """Everything a search works with.

    Attributes
    ----------
    original : onnx.ModelProto
        The model as the user has it.
    normalised : onnx.ModelProto
        The same, its constants folded and its Convs in one form.
    layers : sequence of Layer
        Of `normalised`, their sizes known.
    budget : Budget
        What may be lost and must be gained.
    calibration, selection : Dataset
        Samples for the statistics, and for the search's own measurements; not those of the verdict.
    stopwatch : Stopwatch
        How models are timed.
    store : Store
        Where fits, latencies and measurements are kept.
    table : LatencyTable or SavedLatencies
        Latencies known already; or all there are, where those of another machine count.
    input_shapes : mapping, optional
        Shapes of inputs that the model leaves open.
    seed : int
        Fixes every random choice.
    jobs : int
        Processes for fits; timing never runs beside them.
    progress : callable
        Called with a sentence, the number of steps done, and their total.
    score : Score, optional
        A user's figure of merit, of which the budget bounds the loss.
    cluster : str, optional
        Address of a Dask scheduler whose workers make the fits; timing is done here.
    """

    original: onnx.ModelProto
    normalised: onnx.ModelProto
    layers: Sequence[Layer]
    budget: Budget
    calibration: Dataset
    selection: Dataset
    stopwatch: Stopwatch
    store: Store
    table: LatencyTable | SavedLatencies
    input_shapes: Mapping[str, tuple[int, ...]] | None
    seed: int
    jobs: int
    progress: Progress
    score: Score | None = None
    cluster: str | None = None

    def run(self) -> SearchResult:
        """Search.

        Raises
        ------
        PlanError
            The budget asks for classes that the model has not.
        DataError, ModelError, ProviderError
            As of calibration, onnxruntime and the data.
        """
        found, reasons = ladder(self.layers)
        if not found:
            return self._nothing(reasons, "no layer can be approximated")
        problems = self._problems(found)
        if self.cluster is not None:
            fit_on_cluster(
                self.cluster,
                list(problems.values()),
                self.store,
                seed=self.seed,
                progress=self.progress,
            )
        fits = fit_all(
            list(problems.values()),
            self.store,
            seed=self.seed,
            jobs=self.jobs,
            progress=self.progress,
        )
        base, options = self._options(fits, reasons)
        if not options:
            return self._nothing(reasons, "no layer has a candidate that is measurably faster")
        self.progress("measuring the original", 0, 1)
        meter = QualityMeter(
            self.original, self.selection, score=self.score, provider=self.stopwatch.provider
        )
        if self.budget.max_drop is not None and not meter.has_drop:
            raise PlanError(
                "max_drop needs one output with a score for each class, or a score of your own; "
                "give min_sqnr, or leave max_drop out"
            )
        return _Run(self, base, options, problems, meter).result(reasons)

    def _nothing(self, reasons: Mapping[str, str], why: str) -> SearchResult:
        """Return the original as what the search found."""
        same = Quality(0.0, float("inf"), None, None, 0)
        plan = Plan(tuple(Decision(x.name, None, reasons.get(x.name, why)) for x in self.layers))
        return SearchResult(plan, {}, (), (), same, Timed(0.0, 1.0, 1.0, 1.0), 1.0, (why,))

    def _problems(self, found: Ladder) -> dict[str, LayerProblem]:
        statistics = calibrate(
            self.normalised,
            self.calibration,
            list(found),
            cache_dir=self.store.folder / "statistics",
            seed=self.seed,
            provider=self.stopwatch.provider,
            threads=self.stopwatch.threads if self.jobs == 1 else None,
            progress=self.progress,
        )
        editor = GraphEditor(self.normalised)
        return {
            name: LayerProblem(
                name=name,
                weight=layer_weight(editor, layer),
                bias=layer_bias(editor, layer),
                group=layer.spec.group if layer.spec else 1,
                statistics=statistics,
                digest=statistics.entry(name),
                schemes=schemes,
            )
            for name, (layer, schemes) in found.items()
        }

    def _options(
        self, fits: Mapping[str, Sequence[LayerFit]], reasons: dict[str, str]
    ) -> tuple[float, dict[str, tuple[_Option, ...]]]:
        """Return the original's latency, and each layer's candidates: faster and not dominated."""
        by_name = {layer.name: layer for layer in self.layers}
        batch = next(iter(self.feeds().values())).shape[0]
        chosen: dict[str, list[tuple[LayerFit, int, int]]] = {}
        groups = []
        for name, tried in fits.items():
            spec = by_name[name].spec
            assert spec is not None
            counted = [(fit, fit.scheme.macs(spec) or 0, fit.scheme.params(spec)) for fit in tried]
            kept = worth_trying(
                [macs for _, macs, _ in counted], [fit.error for fit, *_ in counted], slack=SLACK
            )
            chosen[name] = [counted[i] for i in kept]
            single = single_layer_model(self.normalised, by_name[name], batch=batch)
            models = [replaced(single, fit) for fit, *_ in chosen[name]]
            errors = np.array([fit.error for fit, *_ in chosen[name]])
            groups.append(Group(single, models, errors))
        times = time_layers(groups, self.stopwatch, self.store, self.table, progress=self.progress)
        base, layers = self._shares([group.dense for group in groups], [t[0] for t in times])
        options = {}
        for (name, counted), (dense, timed), layer in zip(
            chosen.items(), times, layers, strict=True
        ):
            scale = layer / dense.seconds
            found = [
                _Option(
                    counted[place][0],
                    replace(each, seconds=scale * (each.seconds - dense.seconds)),
                    *counted[place][1:],
                )
                for place, each in timed.items()
                if each.pays
            ]
            if found:
                options[name] = tuple(found)
            else:
                reasons[name] = "no candidate is measurably faster"
        return base, options

    def _shares(
        self, singles: Sequence[onnx.ModelProto], timed: Sequence[Timed]
    ) -> tuple[float, list[float]]:
        """Return the latency of the original and those of its layers, as measured together."""
        if isinstance(self.table, SavedLatencies):
            return self.table.whole.seconds, [each.seconds for each in timed]
        parts = [structure(model) for model in (self.original, *singles)]
        key = key_of("side by side", self.stopwatch.settings, *parts)
        rows = self.store.data(key)
        if rows is None:
            self.progress("timing layers beside the model", 0, 1)
            found = self.stopwatch.side_by_side(self.original, self.feeds(), singles)
            rows = [each.to_list() for each in found]
            self.store.put_data(key, rows)
        whole, *layers = (Timed.from_list(row) for row in rows)
        return whole.seconds, [each.seconds for each in layers]

    def feeds(self) -> dict[str, NDArray[Any]]:
        """Return random inputs of the size that is timed."""
        batch = self.table.batch if isinstance(self.table, SavedLatencies) else None
        return make_feeds(self.original, batch, input_shapes=self.input_shapes, seed=self.seed)


@dataclass(frozen=True)
class _Verdict:
    """A measured model, and whether it is within the bounds on quality."""

    quality: Quality
    passed: bool


class _Run:
    """The part of a search that looks at whole models."""

    def __init__(
        self,
        search: Search,
        base: float,
        options: Mapping[str, tuple[_Option, ...]],
        problems: Mapping[str, LayerProblem],
        meter: QualityMeter,
    ) -> None:
        self._search = search
        self._base = base
        self._options = options
        self._names = tuple(options)
        self._meter = meter
        self._explored: list[Explored] = []
        self._latencies: dict[Picks, Timed] = {}
        digests = Survey.of(search.selection)
        self._head = key_of(
            "quality", model_digest(search.original), digests.digest, digests.labels, meter.digest
        )
        self._digests = {name: problem.digest for name, problem in problems.items()}

    def result(self, reasons: Mapping[str, str]) -> SearchResult:
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
        saved = 1 - predicted
        if saved <= 0:
            return problem
        scale = max(1 - timed.ratio, 0.0) / saved
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
            noise = self._quality({name: probe.fit}).noise
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
        head = key_of("asymmetric", FORMAT, search.seed, *parts)
        stored = {name: search.store.arrays(key_of(head, name)) for name in fits}
        if any(arrays is None for arrays in stored.values()):
            found = fit_model(
                search.normalised,
                self._plan(picks, {}),
                calibration=Calibration(search.calibration, asymmetric=True),
                seed=search.seed,
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

    def _assemble(self, fits: Fits) -> onnx.ModelProto:
        search = self._search
        return assemble(search.normalised, fits, input_shapes=search.input_shapes)

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
