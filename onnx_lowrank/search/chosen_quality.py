"""What models of chosen candidates lose on the samples of a search, each measured once."""

from __future__ import annotations

from onnx_lowrank.cache import key_of
from onnx_lowrank.fitting.arrays import to_arrays
from onnx_lowrank.fitting.statistics.jobs import Survey
from onnx_lowrank.graph.digest import model_digest
from onnx_lowrank.search.candidate import Candidate, Chosen
from onnx_lowrank.search.context import SearchContext
from onnx_lowrank.search.prediction import Predictor
from onnx_lowrank.search.quality import Quality
from onnx_lowrank.search.quality_meter import QualityMeter


class ChosenQuality:
    """What is lost by the models in which layers are replaced by some candidates.

    Parameters
    ----------
    context : SearchContext
        What the search works with.
    meter : QualityMeter
        Measures models on the samples of the search.
    """

    def __init__(self, context: SearchContext, meter: QualityMeter) -> None:
        self._context = context
        self._meter = meter
        survey = Survey.of(context.samples.search)
        self._head = key_of(
            *("quality", model_digest(context.original), survey.digest, survey.labels),
            *(meter.digest, [form.name for form in context.forms]),
        )

    def passes(self, quality: Quality) -> bool:
        """Whether what was measured is within the budget."""
        return quality.within(
            self._context.budget,
            unseen=self._context.samples.verdict,
            probability=self._context.settings.least_probability,
        )

    def room(self, quality: Quality) -> float | None:
        """Return about how many times as much noise the budget allows, where that can be told."""
        return quality.room(
            self._context.budget,
            unseen=self._context.samples.verdict,
            probability=self._context.settings.least_probability,
        )

    def quality(self, chosen: Chosen) -> Quality:
        """Return what a model loses on the samples of the search."""
        key = self._key("quality of parts", chosen)
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
        key = self._key("probe of parts", chosen, samples)
        stored = self._context.store.data(key, float)
        if stored is None:
            stored = self._meter.noise(self._context.assemble(chosen), samples=samples)
            self._context.store.put_data(key, stored)
        return stored

    def chance(self, chosen: Chosen) -> float:
        """Return the probability that the model is within the budget in the verdict."""
        budget = self._context.budget
        unseen = self._context.samples.verdict or self.quality(chosen).samples
        key = self._key("chance of parts", chosen, budget.max_drop, budget.min_sqnr_db, unseen)
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

    def _key(self, kind: str, chosen: Chosen, *what: object) -> str:
        return key_of(kind, self._head, *what, *map(_digest, chosen.values()))


def _digest(candidate: Candidate) -> bytes:
    fit = candidate.fit
    arrays = to_arrays(fit)
    parts = [value.tobytes() for name, value in sorted(arrays.items()) if name != "figures"]
    return key_of(fit.layer, fit.scheme.spec, candidate.form.name, *parts).encode()
