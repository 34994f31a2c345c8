"""Whole models of some candidates: their fits, and what they lose; every result is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from onnx_lowrank.calibrate.jobs import Survey
from onnx_lowrank.fit_model import Calibration, fit_model
from onnx_lowrank.graph.digest import model_digest
from onnx_lowrank.planning.fit import LayerFit
from onnx_lowrank.planning.plan import Decision, Plan
from onnx_lowrank.planning.search import Picks
from onnx_lowrank.searching.assembly import Fits
from onnx_lowrank.searching.fits import FORMAT, LayerProblem, from_arrays, to_arrays
from onnx_lowrank.searching.outlook import Outlook
from onnx_lowrank.searching.quality import Quality, QualityMeter
from onnx_lowrank.store import key_of

if TYPE_CHECKING:
    from onnx_lowrank.searching.run import Search


class WholeModels:
    """Models in which layers are replaced by candidates of theirs, and how far off they are.

    Parameters
    ----------
    search : Search
        What it is for.
    candidates : mapping of str to sequence of LayerFit
        By layer name; pick 0 keeps a layer, pick ``k`` is its candidate ``k - 1``.
    problems : mapping of str to LayerProblem
        What they were fitted to.
    meter : QualityMeter
        Measures models on the samples of the search.
    """

    def __init__(
        self,
        search: Search,
        candidates: Mapping[str, Sequence[LayerFit]],
        problems: Mapping[str, LayerProblem],
        meter: QualityMeter,
    ) -> None:
        self._search = search
        self._candidates = candidates
        self._meter = meter
        survey = Survey.of(search.selection)
        self._head = key_of(
            *("quality", model_digest(search.original), survey.digest, survey.labels),
            *(meter.digest, search.portable),
        )
        self._digests = {name: problem.digest for name, problem in problems.items()}

    def fits(self, picks: Picks) -> Fits:
        """Return the fits to the layers' inputs in the original."""
        return {
            name: fits[pick - 1]
            for (name, fits), pick in zip(self._candidates.items(), picks, strict=True)
            if pick
        }

    def refits(self, picks: Picks) -> Fits:
        """Return fits, layer by layer from below, to the inputs in the compressed network."""
        search, fits = self._search, self.fits(picks)
        parts = [f"{name} {fit.scheme.spec} {self._digests[name]}" for name, fit in fits.items()]
        head = key_of("asymmetric, from symmetric", FORMAT, search.seed, *parts)
        stored = {
            name: search.store.arrays(
                key_of(head, name), partial(from_arrays, name, fits[name].scheme)
            )
            for name in fits
        }
        if None in stored.values():
            order = [layer.name for layer in search.layers if layer.name in fits]
            found = fit_model(
                search.normalised,
                Plan(tuple(Decision(name, fits[name].scheme) for name in order)),
                calibration=Calibration(
                    search.calibration, asymmetric=True, provider=search.stopwatch.engine.device
                ),
                seed=search.seed,
                starts=fits,
                progress=search.progress,
            ).fits
            for name, fit in found.items():
                search.store.put_arrays(key_of(head, name), to_arrays(fit))
            return found
        return {name: fit for name, fit in stored.items() if fit is not None}

    def best(self, picks: Picks) -> tuple[Fits, Quality]:
        """Return the better of both fits: within the budget, and then of less noise."""
        both = [self.fits(picks), self.refits(picks)]
        seen = [self.quality(fits) for fits in both]
        passed = [self.passes(quality) for quality in seen]
        best = min((0, 1), key=lambda kind: (not passed[kind], seen[kind].noise))
        return both[best], seen[best]

    def passes(self, quality: Quality) -> bool:
        """Whether what was measured is within the budget."""
        return quality.within(self._search.budget, unseen=self._search.unseen)

    def quality(self, fits: Fits) -> Quality:
        """Return what a model loses on the samples of the search."""
        key = key_of(
            "quality of parts",
            self._head,
            *(_fit_digest(fit) for fit in fits.values()),
        )
        stored = self._search.store.data(key, Quality.from_dict)
        if stored is not None:
            return stored
        quality = self._meter.measure(self._search.assemble(fits))
        self._search.store.put_data(key, quality.to_dict())
        return quality

    def noise(self, fits: Fits) -> float:
        """Return the noise alone, as some of the samples tell it."""
        key = key_of("probe of parts", self._head, *(_fit_digest(fit) for fit in fits.values()))
        stored = self._search.store.data(key, float)
        if stored is None:
            stored = self._meter.noise(self._search.assemble(fits))
            self._search.store.put_data(key, stored)
        return stored

    def chance(self, fits: Fits) -> float:
        """Return the probability that the model is within the budget in the verdict."""
        budget, unseen = self._search.budget, self._search.unseen or self.quality(fits).samples
        bounds = (budget.max_drop, budget.min_sqnr_db)
        key = key_of(
            "chance of parts", self._head, *bounds, unseen, *map(_fit_digest, fits.values())
        )
        stored = self._search.store.data(key, float)
        if stored is None:
            stored = self._meter.chance(self._search.assemble(fits), budget, unseen)
            self._search.store.put_data(key, stored)
        return stored

    def outlook(self, fits: Fits) -> Outlook | None:
        """Return what the samples of the search say of others."""
        return self._meter.outlook(self._search.assemble(fits), self._search.budget)


def _fit_digest(fit: LayerFit) -> bytes:
    arrays = to_arrays(fit)
    parts = [value.tobytes() for name, value in sorted(arrays.items()) if name != "figures"]
    return key_of(fit.layer, fit.scheme.spec, *parts).encode()
