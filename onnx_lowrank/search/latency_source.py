"""Where a search has its latencies from: measured here, or a table of another machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.cache import Cache, key_of
from onnx_lowrank.planning.latency import LatencyTable, Timed, Timer
from onnx_lowrank.runtime.layout import idle_model, reordered_ends, reordering_model
from onnx_lowrank.search.settings import SETTINGS
from onnx_lowrank.search.single_layer import layer_feeds, structure
from onnx_lowrank.search.timing import Stopwatch
from onnx_lowrank.types import Feeds, Progress

Sizes = tuple[int, ...]
ELSEWHERE = ""  # the settings in the keys of saved latencies: the table has them once for all


@dataclass(frozen=True, eq=False)
class Group:
    """A layer and its candidates, as models of one layer each.

    Attributes
    ----------
    dense : onnx.ModelProto
        The layer.
    candidates : sequence of onnx.ModelProto
        What could replace it.
    errors : ndarray
        The candidates' errors; NaN where they are unknown, which beats nothing.
    forms : sequence of str
        The names of their forms: a candidate only beats others of its own form, whose tensors have
        the same layout.
    schemes : sequence of str
        The names of their schemes.
    macs : ndarray
        Their multiply-adds: candidates of one scheme and form differ in ranks alone.
    """

    dense: onnx.ModelProto
    candidates: Sequence[onnx.ModelProto]
    errors: NDArray[np.float64]
    forms: Sequence[str]
    schemes: Sequence[str]
    macs: NDArray[np.float64]

    def alike(self) -> Iterator[NDArray[np.int64]]:
        """Yield the places of candidates of one scheme and form, the fewest operations first."""
        kinds = list(zip(self.schemes, self.forms, strict=True))
        for kind in dict.fromkeys(kinds):
            places = np.array([place for place, each in enumerate(kinds) if each == kind])
            yield places[np.argsort(self.macs[places], kind="stable")]

    def keys(self, settings: str) -> list[str]:
        """Return the key of the layer and those of the candidates, under some settings."""
        dense = key_of("latency", settings, structure(self.dense))
        return [dense, *(key_of(dense, structure(model)) for model in self.candidates)]


Timings = list[tuple[Timed, dict[int, Timed]]]
"""For every layer its own latency, and those of the candidates that are worth it, by place."""


@dataclass(frozen=True)
class InNetwork:
    """What a model, its layers, and changes of layout between them take, in seconds.

    Attributes
    ----------
    original, bare : float
        The original, and the original after the passes of the forms with no layer replaced.
    layers : tuple of float
        Layers as models of their own.
    ends : tuple of (bool, bool)
        Whether a layer's input and output are reordered there.
    reorders : mapping of tuple of int to float
        To reorder a tensor one way, by its sizes.
    """

    original: float
    bare: float
    layers: tuple[float, ...]
    ends: tuple[tuple[bool, bool], ...]
    reorders: Mapping[Sizes, float] = field(default_factory=dict)


class LatencySource(Protocol):
    """Seconds of candidates and of whole models."""

    @property
    def batch(self) -> int | None:
        """Samples at once; None is the number that the model fixes, or 1."""
        ...

    def candidates(self, groups: Sequence[Group], *, progress: Progress) -> Timings:
        """Return the latencies of layers and of candidates beside them.

        Raises
        ------
        PlanError
            A layer's latency is unknown.
        """
        ...

    def in_network(
        self,
        networks: Sequence[onnx.ModelProto],
        feeds: Feeds,
        layers: Sequence[tuple[onnx.ModelProto, Timed]],
        sizes: Sequence[Sizes],
    ) -> InNetwork:
        """Return what layers, and changes of layout, take of a model's time.

        Parameters
        ----------
        networks : sequence of onnx.ModelProto
            The original, and the same after the passes of the forms where there are any.
        feeds : mapping of str to ndarray
            Their inputs.
        layers : sequence of (onnx.ModelProto, Timed)
            Layers as models of their own, and what `candidates` said of them.
        sizes : sequence of tuple of int
            Tensors ``(N, C, H, W)`` whose layout may change; none where no form has another.
        """
        ...

    def models(
        self, models: Sequence[onnx.ModelProto], feeds: Feeds, predicted: Sequence[float]
    ) -> list[Timed]:
        """Return the latencies of whole models beside the first, the original.

        Parameters
        ----------
        models : sequence of onnx.ModelProto
            The first is the original.
        feeds : mapping of str to ndarray
            Their inputs.
        predicted : sequence of float
            For each the latency over the original's, as the sum of the layers says.
        """
        ...


@dataclass(frozen=True)
class MeasuredHere:
    """Latencies measured on this machine; they are cached, and not measured again.

    Attributes
    ----------
    stopwatch : Stopwatch
        Times models, as long and as precisely as its settings say.
    store : Cache
        Caches latencies.
    batch : int or None
        Samples at once; None is the number that the model fixes, or 1.
    """

    stopwatch: Stopwatch
    store: Cache
    batch: int | None = None

    def candidates(self, groups: Sequence[Group], *, progress: Progress) -> Timings:
        """Time the candidates of every layer beside it.

        Of each scheme and form some are timed roughly first, and what the others take is
        interpolated over their operations; those that another one beats in error and clearly in
        latency are left out of the measurement proper.
        """
        found = []
        for done, group in enumerate(groups):
            progress("timing candidates", done, len(groups))
            found.append(self._layer(group))
        progress("timing candidates", len(groups), len(groups))
        return found

    @property
    def _where(self) -> str:
        """What latencies depend on besides the model; the usual settings go without saying."""
        engine, settings = self.stopwatch.engine.settings, self.stopwatch.settings
        return engine if settings == SETTINGS else f"{engine} {settings}"

    def _layer(self, group: Group) -> tuple[Timed, dict[int, Timed]]:
        feeds = layer_feeds(group.dense, seed=self.stopwatch.seed)
        dense, *keys = group.keys(self._where)
        models = {dense: group.dense, **dict(zip(keys, group.candidates, strict=True))}

        some = np.zeros(len(keys), bool)
        for places in group.alike():
            some[_spread(places, self.stopwatch.settings.rough_ranks)] = True

        def roughly(wanted: Sequence[str]) -> dict[str, Timed]:
            ratios = self.stopwatch.rough([models[key] for key in wanted], feeds)
            return {k: Timed(0.0, r, r, r) for k, r in zip(wanted, ratios.tolist(), strict=True)}

        def precisely(wanted: Sequence[str]) -> dict[str, Timed]:
            timed = self.stopwatch.compare(
                [models[k] for k in wanted], feeds, seconds=self.stopwatch.settings.layer_seconds
            )
            return dict(zip(wanted, timed, strict=True))

        first = [key for key, one in zip(keys, some, strict=True) if one]
        rough = self._cached("rough", [dense, *first], roughly)
        ratios = np.full(len(keys), np.nan)
        ratios[some] = [each.ratio for each in rough[1:]]
        for places in group.alike():
            timed = places[some[places]]
            work = np.log(group.macs)
            ratios[places] = np.exp(np.interp(work[places], work[timed], np.log(ratios[timed])))
        forms = np.array(group.forms)
        clear = self.stopwatch.settings.clearly_slower
        chosen = [
            place
            for place in range(len(keys))
            if ratios[place] < clear
            and not np.any(
                (ratios * clear <= ratios[place])
                & (group.errors <= group.errors[place])
                & (forms == forms[place])
            )
        ]
        own, *found = self._cached(
            "latency", [dense, *(keys[place] for place in chosen)], precisely
        )
        return own, dict(zip(chosen, found, strict=True))

    def in_network(
        self,
        networks: Sequence[onnx.ModelProto],
        feeds: Feeds,
        layers: Sequence[tuple[onnx.ModelProto, Timed]],
        sizes: Sequence[Sizes],
    ) -> InNetwork:
        """Time the models and their layers in one interleaved run, and reorders beside a layer."""
        singles = [model for model, _ in layers]
        key = key_of(
            *("side by side", self._where),
            *(structure(model) for model in (*networks, *singles)),
        )
        count = len(networks) + len(singles)
        seconds = self._seconds(
            key,
            count,
            lambda: self.stopwatch.side_by_side(
                networks, feeds, singles, seconds=self.stopwatch.settings.part_seconds
            ),
        )
        within = tuple(seconds[len(networks) :])
        blocked = self.stopwatch.engine.reorders and bool(sizes)
        ends = tuple(reordered_ends(model) if blocked else (False, False) for model in singles)
        reorders = self._reorders(sizes, singles[0], within[0]) if blocked else {}
        return InNetwork(seconds[0], seconds[len(networks) - 1], within, ends, reorders)

    def _reorders(
        self, sizes: Sequence[Sizes], layer: onnx.ModelProto, seconds: float
    ) -> dict[Sizes, float]:
        """Return what it takes to reorder tensors one way, timed beside a layer of known time."""
        wanted = list(dict.fromkeys(sizes))
        parts = [model for each in wanted for model in (idle_model(each), reordering_model(each))]
        key = key_of("reorders", self._where, structure(layer), wanted)
        models = [layer, *parts]
        found = self._seconds(
            key,
            len(models),
            lambda: self.stopwatch.beside(models, seconds=self.stopwatch.settings.layer_seconds),
        )
        scale = seconds / found[0]
        there_and_back = zip(found[1::2], found[2::2], strict=True)
        return {
            each: max(scale * (both - idle) / 2, 0.0)
            for each, (idle, both) in zip(wanted, there_and_back, strict=True)
        }

    def models(
        self, models: Sequence[onnx.ModelProto], feeds: Feeds, predicted: Sequence[float]
    ) -> list[Timed]:
        """Time whole models."""
        del predicted
        return self.stopwatch.compare(models, feeds, seconds=self.stopwatch.settings.model_seconds)

    def _seconds(self, key: str, count: int, timing: Callable[[], list[Timed]]) -> list[float]:
        def decode(rows: Any) -> list[Timed]:
            if len(rows) != count:
                raise ValueError(f"{len(rows)} latencies, not {count}")
            return [Timed.from_list(row) for row in rows]

        timed = self.store.data(key, decode)
        if timed is None:
            timed = timing()
            self.store.put_data(key, [each.to_list() for each in timed])
        return [each.seconds for each in timed]

    def _cached(self, kind: str, keys: Sequence[str], timer: Timer) -> list[Timed]:
        """Return the latencies of `keys`, from the store or the timer."""
        table = LatencyTable()
        for key in keys:
            if (timed := self.store.data(key_of(kind, key), Timed.from_list)) is not None:
                table.known[key] = timed

        def storing(wanted: Sequence[str]) -> Mapping[str, Timed]:
            found = timer(wanted)
            for key, each in found.items():
                self.store.put_data(key_of(kind, key), each.to_list())
            return found

        return table.measured(keys, storing)


def _spread(places: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return so many of some places, from the first to the last, or all of them."""
    return places[np.unique(np.linspace(0, len(places) - 1, count).round().astype(np.int64))]
