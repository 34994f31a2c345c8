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
from onnx_lowrank.fitting.output_refit import refit_outputs
from onnx_lowrank.planning.latency import Timed
from onnx_lowrank.rewriting.form import Form
from onnx_lowrank.schemes.dense import Dense
from onnx_lowrank.search.candidate import Chosen, Option
from onnx_lowrank.search.chosen_quality import ChosenQuality
from onnx_lowrank.search.context import SearchContext
from onnx_lowrank.search.layer_fits import LayerFits
from onnx_lowrank.search.problem import Picks, Problem
from onnx_lowrank.search.quality import Quality
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
    losses : ChosenQuality
        Measures what models lose on the samples of the search.

    Attributes
    ----------
    losses : ChosenQuality
        As given.
    explored : list of Explored
        The models whose quality was asked for, in that order.
    """

    def __init__(
        self,
        context: SearchContext,
        options: Mapping[str, Sequence[Option]],
        fits: LayerFits,
        losses: ChosenQuality,
    ) -> None:
        self.explored: list[Explored] = []
        self._context = context
        self._options = options
        self._fits = fits
        self.losses = losses
        self._rough: dict[Picks, Timed] = {}
        self._precise: dict[Picks, Timed] = {}
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
        return self._fits.candidates(options)

    def refitted(self, picks: Picks) -> Chosen:
        """Return the same, refitted from below to the inputs in the compressed network."""
        if picks not in self._refits:  # one that failed is not tried again
            with self._context.seconds.step("refits"):
                self._refits[picks] = self._refit(picks)
        return self._refits[picks]

    def _refit(self, picks: Picks) -> Chosen:
        context, chosen = self._context, self.chosen(picks)
        fits = {name: c.fit for name, c in chosen.items() if not isinstance(c.fit.scheme, Dense)}
        tasks = self._fits.tasks
        parts = [f"{name} {fit.scheme.spec} {tasks[name].digest}" for name, fit in fits.items()]
        head = key_of("refitted outputs", FORMAT, context.options.seed, *parts)
        stored = {
            name: context.store.arrays(
                key_of(head, name), partial(from_arrays, name, fit.scheme, tasks[name].conv)
            )
            for name, fit in fits.items()
        }
        found = {name: fit for name, fit in stored.items() if fit is not None}
        if len(found) < len(fits):
            found = refit_outputs(
                context.normalised,
                fits,
                context.samples.calibration,
                engine=context.options.engine.with_threads(None),
                seed=context.options.seed,
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
        qualities = [self.losses.quality(chosen) for chosen in both]
        passed = [self.losses.passes(quality) for quality in qualities]
        best = min((0, 1), key=lambda kind: (not passed[kind], qualities[kind].noise))
        return both[best], qualities[best]

    def accepts(self, problem: Problem, picks: Picks) -> bool:
        """Measure the fits of some picks and note it; return whether they are within the budget."""
        self._show()
        return self.note(problem, picks, self.losses.quality(self.chosen(picks)))

    def accepts_refitted(self, problem: Problem, picks: Picks) -> bool:
        """Do the same with the better of their fits and refits."""
        self._show()
        return self.note(problem, picks, self.best(picks)[1])

    def note(self, problem: Problem, picks: Picks, quality: Quality) -> bool:
        """Note what was measured of some picks; return whether it is within the budget."""
        passed = self.losses.passes(quality)
        self.explored.append(
            Explored(
                predicted_ratio=problem.predicted_ratio(picks),
                predicted_noise=problem.predicted_damage(picks),
                quality=quality,
                passed=passed,
            )
        )
        return passed

    def latency(self, problem: Problem, picks: Picks, *, precisely: bool = False) -> Timed:
        """Return a whole model's latency, measured once, or once more to know it precisely."""
        known = self._precise if precisely else {**self._rough, **self._precise}
        if picks not in known:
            timings = self._precise if precisely else self._rough
            self._context.progress("timing the whole model", len(known), len(known) + 1)
            model = self._context.assemble(self.chosen(picks))
            ratio = problem.predicted_ratio(picks)
            timings[picks] = self.time([model], [ratio], precisely=precisely)[0]
            return timings[picks]
        return known[picks]

    def time(
        self,
        models: Sequence[onnx.ModelProto],
        predicted: Sequence[float],
        *,
        precisely: bool = False,
    ) -> list[Timed]:
        """Time models beside the original."""
        context = self._context
        with context.seconds.step("timing whole models"):
            return context.latencies.models(
                [context.original, *models], context.feeds(), [1.0, *predicted], precisely=precisely
            )[1:]

    def _show(self) -> None:
        most = self._context.settings.most_evaluations + 2 * self._context.settings.most_refits
        self._context.progress("measuring a whole model", len(self.explored), most)
