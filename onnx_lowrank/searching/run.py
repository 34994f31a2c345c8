"""From a budget to the fastest model within it, by measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.cache import Cache, key_of
from onnx_lowrank.calibrate import calibrate
from onnx_lowrank.data import Dataset
from onnx_lowrank.errors import PlanError
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.io import serialised_size
from onnx_lowrank.graph.layers import Layer, layer_bias, layer_weight
from onnx_lowrank.layer_errors import LAYER_ERRORS, layer_reason
from onnx_lowrank.passes.normalize import normalised
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.planning.fit import LayerFit
from onnx_lowrank.planning.latency import LatencyTable, SavedLatencies, Timed
from onnx_lowrank.planning.plan import Decision, Plan
from onnx_lowrank.planning.search import worth_trying
from onnx_lowrank.score import Score
from onnx_lowrank.searching.assembly import Fits, assemble
from onnx_lowrank.searching.cluster import fit_on_cluster
from onnx_lowrank.searching.fits import LayerProblem, fit_all
from onnx_lowrank.searching.ladder import Ladder, ladder
from onnx_lowrank.searching.quality import Quality, QualityMeter
from onnx_lowrank.searching.result import SearchResult
from onnx_lowrank.searching.selection import Option, Selection
from onnx_lowrank.searching.single_layer import replaced, single_layer_model, structure
from onnx_lowrank.searching.sizes import added_bytes
from onnx_lowrank.searching.timing import Group, Stopwatch, time_layers
from onnx_lowrank.types import Progress
from onnx_lowrank.workload import batch_of, make_feeds

SLACK = 1.5  # how much faster per operation one structure may run than another


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
    store : Cache
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
    portable : bool
        Whether layers become portable nodes, and are timed as such.
    unseen : int, optional
        Number of samples of the verdict; that of `selection` by default.
    kept : mapping of str to str
        Why layers are left out of the search, by name.
    """

    original: onnx.ModelProto
    normalised: onnx.ModelProto
    layers: Sequence[Layer]
    budget: Budget
    calibration: Dataset
    selection: Dataset
    stopwatch: Stopwatch
    store: Cache
    table: LatencyTable | SavedLatencies
    input_shapes: Mapping[str, tuple[int, ...]] | None
    seed: int
    jobs: int
    progress: Progress
    score: Score | None = None
    cluster: str | None = None
    portable: bool = False
    unseen: int | None = None
    kept: Mapping[str, str] = field(default_factory=dict)

    def run(self) -> SearchResult:
        """Search.

        Raises
        ------
        PlanError
            The budget asks for classes that the model has not.
        DataError, ModelError, ProviderError
            As of calibration, onnxruntime and the data.
        """
        found, reasons = ladder(self.layers, kept=self.kept)
        problems = self._problems(found, reasons) if found else {}
        if not problems:
            return self._nothing(reasons, "no layer can be approximated")
        if self.cluster is not None:
            fit_on_cluster(
                self.cluster,
                list(problems.values()),
                self.store,
                seed=self.seed,
                progress=self.progress,
            )
        fits, failed = fit_all(
            list(problems.values()),
            self.store,
            seed=self.seed,
            jobs=self.jobs,
            progress=self.progress,
        )
        reasons |= failed
        base, saved, options = self._options(fits, reasons) if fits else (0.0, 0.0, {})
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
        return Selection(self, base, saved, options, problems, meter).result(reasons)

    def _nothing(self, reasons: Mapping[str, str], why: str) -> SearchResult:
        """Return the original as what the search found."""
        same = Quality(0.0, float("inf"), None, None, 0)
        plan = Plan(tuple(Decision(x.name, None, reasons.get(x.name, why)) for x in self.layers))
        return SearchResult(plan, {}, (), (), same, Timed(0.0, 1.0, 1.0, 1.0), 1.0, (why,))

    def _problems(self, found: Ladder, reasons: dict[str, str]) -> dict[str, LayerProblem]:
        """Return what to fit; reasons are added for layers that the data do not suit."""
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
        reasons |= statistics.refused
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
            if name not in statistics.refused
        }

    def _options(
        self, fits: Mapping[str, Sequence[LayerFit]], reasons: dict[str, str]
    ) -> tuple[float, float, dict[str, tuple[Option, ...]]]:
        """Return the original's latency, what it loses unasked, and each layer's candidates.

        The candidates are faster than the layer and not dominated.
        """
        by_name = {layer.name: layer for layer in self.layers}
        batch = batch_of(self.original, self.feeds())
        chosen: dict[str, list[tuple[LayerFit, int, int]]] = {}
        groups = []
        added: dict[str, list[int]] = {}
        for name, tried in fits.items():
            spec = by_name[name].spec
            assert spec is not None
            counted = [(fit, fit.scheme.macs(spec) or 0, fit.scheme.params(spec)) for fit in tried]
            kept = worth_trying(
                [macs for _, macs, _ in counted], [fit.error for fit, *_ in counted], slack=SLACK
            )
            try:
                single = single_layer_model(self.normalised, by_name[name], batch=batch)
                models = [replaced(single, counted[i][0], portable=self.portable) for i in kept]
            except LAYER_ERRORS as error:
                reasons[name] = layer_reason(error)
                continue
            chosen[name] = [counted[i] for i in kept]
            weight = by_name[name].weight
            added[name] = [added_bytes(single, model, weight) for model in models]
            errors = np.array([fit.error for fit, *_ in chosen[name]])
            groups.append(Group(single, models, errors))
        times = time_layers(groups, self.stopwatch, self.store, self.table, progress=self.progress)
        base, saved, layers = self._shares([group.dense for group in groups], [t[0] for t in times])
        options = {}
        for (name, counted), (dense, timed), layer in zip(
            chosen.items(), times, layers, strict=True
        ):
            scale = layer / dense.seconds
            found = [
                Option(
                    counted[place][0],
                    replace(each, seconds=scale * (each.seconds - dense.seconds)),
                    *counted[place][1:],
                    added_bytes=added[name][place],
                )
                for place, each in timed.items()
                if each.pays
            ]
            if found:
                options[name] = tuple(found)
            else:
                reasons[name] = "no candidate is measurably faster"
        return base, saved, options

    def _shares(
        self, singles: Sequence[onnx.ModelProto], timed: Sequence[Timed]
    ) -> tuple[float, float, list[float]]:
        """Return the latency of the original, what it loses unasked, and those of its layers.

        All are measured together. Without any layer replaced, the passes of portable nodes may
        speed up other nodes.
        """
        if isinstance(self.table, SavedLatencies):
            return self.table.whole.seconds, 0.0, [each.seconds for each in timed]
        wholes = [self.original, *([self.assemble({})] if self.portable else [])]
        key = key_of(
            *("side by side", self.stopwatch.settings),
            *(structure(model) for model in (*wholes, *singles)),
        )
        count = len(wholes) + len(singles)

        def decode(rows: Any) -> list[Timed]:
            if len(rows) != count:
                raise ValueError(f"{len(rows)} latencies, not {count}")
            return [Timed.from_list(row) for row in rows]

        timings = self.store.data(key, decode)
        if timings is None:
            self.progress("timing layers beside the model", 0, 1)
            timings = list(self.stopwatch.side_by_side(wholes, self.feeds(), singles))
            self.store.put_data(key, [each.to_list() for each in timings])
        seconds = [each.seconds for each in timings]
        base, layers = seconds[0], seconds[len(wholes) :]
        return base, base - seconds[len(wholes) - 1], layers

    def assemble(self, fits: Fits) -> onnx.ModelProto:
        """Return the model with the layers of some fits replaced."""
        return assemble(
            self.normalised, fits, input_shapes=self.input_shapes, portable=self.portable
        )

    def file_bytes(self, fits: Fits) -> int:
        """Return the size of the file with the layers of some fits replaced, the others as is."""
        prepared, _ = normalised(self.original, frozenset(fits))
        return serialised_size(
            assemble(prepared, fits, input_shapes=self.input_shapes, portable=self.portable)
        )

    def feeds(self) -> dict[str, NDArray[Any]]:
        """Return random inputs of the size that is timed."""
        batch = self.table.batch if isinstance(self.table, SavedLatencies) else None
        return make_feeds(self.original, batch, input_shapes=self.input_shapes, seed=self.seed)
