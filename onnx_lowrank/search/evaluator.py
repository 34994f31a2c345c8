"""Measures whole models of candidates: what they lose and how long they take, each once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.cache import key_of
from onnx_lowrank.fitting.arrays import FORMAT, from_arrays, to_arrays
from onnx_lowrank.fitting.model import Calibration, fit_model
from onnx_lowrank.fitting.statistics.jobs import Survey
from onnx_lowrank.graph.digest import model_digest
from onnx_lowrank.planning.latency import Timed
from onnx_lowrank.planning.plan import Decision, Plan
from onnx_lowrank.rewriting.form import Form
from onnx_lowrank.schemes.dense import Dense
from onnx_lowrank.search.candidate import Candidate, Chosen, Option
from onnx_lowrank.search.context import SearchContext
from onnx_lowrank.search.layer_fits import LayerFits
from onnx_lowrank.search.prediction import Predictor
from onnx_lowrank.search.problem import Picks, Problem
from onnx_lowrank.search.quality import Quality
from onnx_lowrank.search.quality_meter import QualityMeter
from onnx_lowrank.search.result import Explored


class Evaluator:
    """Models in which layers are replaced by candidates of theirs.

    Parameters
    ----------
    context : SearchContext
        What the search works with.
    options : mapping of str to sequence of Option
        By layer name; pick 0 keeps a layer, pick ``k`` is its option ``k - 1``.
    fits : LayerFits
        Makes the fits of what is chosen.
    meter : QualityMeter
        Measures models on the samples of the search.

    Attributes
    ----------
    explored : list of Explored
        The models whose quality was asked for, in that order.
    """

    def __init__(
        self,
        context: SearchContext,
        options: Mapping[str, Sequence[Option]],
        fits: LayerFits,
        meter: QualityMeter,
    ) -> None:
        self.explored: list[Explored] = []
        self._context = context
        self._options = options
        self._fits = fits
        self._meter = meter
        survey = Survey.of(context.samples.search)
        self._head = key_of(
            *("quality", model_digest(context.original), survey.digest, survey.labels),
            *(meter.digest, [form.name for form in context.forms]),
        )
        self._latencies: dict[Picks, Timed] = {}
        self._refits: dict[Picks, Chosen] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The layers that have options."""
        return tuple(self._options)

    def of_form(self, name: str, form: Form) -> NDArray[np.float64]:
        """Return 1 for the options of a layer that have a form, 0 for others and for the layer."""
        return np.array([0.0, *(o.form is form for o in self._options[name])])

    def chosen(self, picks: Picks) -> Chosen:
        """Return the candidates of some picks, fitted to the layers' inputs in the original.

        A layer whose fit fails stays as it is.
        """
        options = {
            name: tried[pick - 1]
            for (name, tried), pick in zip(self._options.items(), picks, strict=True)
            if pick
        }
        return self.candidates(options)

    def candidates(self, options: Mapping[str, Option]) -> Chosen:
        """Return options, by layer name, with their fits."""
        schemes = {n: [o.scheme] for n, o in options.items() if not isinstance(o.scheme, Dense)}
        self._fits.make(schemes)
        found = {}
        for name, option in options.items():
            made = self._fits.of(name).get(option.scheme.spec)
            fit = made if name in schemes else self._fits.dense(name)
            if fit is not None:
                found[name] = Candidate(fit, option.form)
        return found

    def refitted(self, picks: Picks) -> Chosen:
        """Return the same, refitted from below to the inputs in the compressed network."""
        if picks not in self._refits:  # a layer whose refit fails is not in the store
            with self._context.seconds.step("refits"):
                self._refits[picks] = self._refit(picks)
        return self._refits[picks]

    def _refit(self, picks: Picks) -> Chosen:
        context, chosen = self._context, self.chosen(picks)
        fits = {name: c.fit for name, c in chosen.items() if not isinstance(c.fit.scheme, Dense)}
        tasks = self._fits.tasks
        parts = [f"{name} {fit.scheme.spec} {tasks[name].digest}" for name, fit in fits.items()]
        head = key_of("asymmetric, from symmetric", FORMAT, context.options.seed, *parts)
        stored = {
            name: context.store.arrays(
                key_of(head, name), partial(from_arrays, name, fit.scheme, tasks[name].conv)
            )
            for name, fit in fits.items()
        }
        found = {name: fit for name, fit in stored.items() if fit is not None}
        if len(found) < len(fits):
            order = [layer.name for layer in context.layers if layer.name in fits]
            found = fit_model(
                context.normalised,
                Plan(tuple(Decision(name, fits[name].scheme) for name in order)),
                calibration=Calibration(
                    context.samples.calibration,
                    asymmetric=True,
                    engine=context.options.engine.with_threads(None),
                ),
                seed=context.options.seed,
                starts=fits,
                progress=context.progress,
            ).fits
            for name, fit in found.items():
                context.store.put_arrays(key_of(head, name), to_arrays(fit))
        return {
            name: replace(candidate, fit=found.get(name, candidate.fit))
            for name, candidate in chosen.items()
        }

    def best(self, picks: Picks) -> tuple[Chosen, Quality]:
        """Return the better of both fits: within the budget, and then of less noise."""
        both = [self.chosen(picks), self.refitted(picks)]
        qualities = [self.quality(chosen) for chosen in both]
        passed = [self.passes(quality) for quality in qualities]
        best = min((0, 1), key=lambda kind: (not passed[kind], qualities[kind].noise))
        return both[best], qualities[best]

    def passes(self, quality: Quality) -> bool:
        """Whether what was measured is within the budget."""
        return quality.within(
            self._context.budget,
            unseen=self._context.samples.verdict,
            probability=self._context.settings.least_probability,
        )

    def quality(self, chosen: Chosen) -> Quality:
        """Return what a model loses on the samples of the search."""
        key = key_of("quality of parts", self._head, *map(_digest, chosen.values()))
        stored = self._context.store.data(key, Quality.from_dict)
        if stored is not None:
            return stored
        with self._context.seconds.step("whole models"):
            quality = self._meter.measure(self._context.assemble(chosen))
        self._context.store.put_data(key, quality.to_dict())
        return quality

    def noise(self, chosen: Chosen) -> float:
        """Return the noise alone, estimated from some of the samples."""
        samples = self._context.settings.probe_samples
        key = key_of("probe of parts", samples, self._head, *map(_digest, chosen.values()))
        stored = self._context.store.data(key, float)
        if stored is None:
            stored = self._meter.noise(self._context.assemble(chosen), samples=samples)
            self._context.store.put_data(key, stored)
        return stored

    def chance(self, chosen: Chosen) -> float:
        """Return the probability that the model is within the budget in the verdict."""
        budget = self._context.budget
        unseen = self._context.samples.verdict or self.quality(chosen).samples
        bounds = (budget.max_drop, budget.min_sqnr_db)
        key = key_of("chance of parts", self._head, *bounds, unseen, *map(_digest, chosen.values()))
        stored = self._context.store.data(key, float)
        if stored is None:
            with self._context.seconds.step("whole models"):
                stored = self._meter.chance(self._context.assemble(chosen), budget, unseen)
            self._context.store.put_data(key, stored)
        return stored

    def predictor(self, chosen: Chosen) -> Predictor | None:
        """Return what predicts the loss on other samples from those of the search."""
        with self._context.seconds.step("whole models"):
            return self._meter.predictor(self._context.assemble(chosen), self._context.budget)

    def accepts(self, problem: Problem, picks: Picks) -> bool:
        """Measure the fits of some picks and note it; return whether they are within the budget."""
        self._show()
        return self.note(problem, picks, self.quality(self.chosen(picks)))

    def accepts_refitted(self, problem: Problem, picks: Picks) -> bool:
        """Do the same with the better of their fits and refits."""
        self._show()
        return self.note(problem, picks, self.best(picks)[1])

    def note(self, problem: Problem, picks: Picks, quality: Quality) -> bool:
        """Note what was measured of some picks; return whether it is within the budget."""
        passed = self.passes(quality)
        self.explored.append(
            Explored(
                predicted_ratio=problem.predicted_ratio(picks),
                predicted_noise=problem.predicted_damage(picks),
                quality=quality,
                passed=passed,
            )
        )
        return passed

    def latency(self, problem: Problem, picks: Picks) -> Timed:
        """Return a whole model's latency, measured once."""
        if picks not in self._latencies:
            context = self._context
            context.progress(
                "timing the whole model", len(self._latencies), context.settings.most_corrections
            )
            model = context.assemble(self.chosen(picks))
            self._latencies[picks] = self.time([model], [problem.predicted_ratio(picks)])[0]
        return self._latencies[picks]

    def time(self, models: Sequence[onnx.ModelProto], predicted: Sequence[float]) -> list[Timed]:
        """Time models beside the original."""
        context = self._context
        with context.seconds.step("timing whole models"):
            return context.latencies.models(
                [context.original, *models], context.feeds(), [1.0, *predicted]
            )[1:]

    def _show(self) -> None:
        most = self._context.settings.most_evaluations + 2 * self._context.settings.most_refits
        self._context.progress("measuring a whole model", len(self.explored), most)


def _digest(candidate: Candidate) -> bytes:
    fit = candidate.fit
    arrays = to_arrays(fit)
    parts = [value.tobytes() for name, value in sorted(arrays.items()) if name != "figures"]
    return key_of(fit.layer, fit.scheme.spec, candidate.form.name, *parts).encode()
