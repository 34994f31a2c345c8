"""Where a search has its latencies from: measured here, or a table of another machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.cache import Cache, key_of
from onnx_lowrank.planning.latency import Timed
from onnx_lowrank.runtime.layout import idle_model, reordered_ends, reordering_model
from onnx_lowrank.runtime.statistics import MIN_REPEATS
from onnx_lowrank.schemes.dense import Dense
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
    kinds : sequence of (str, str)
        Scheme and form of each candidate, by name: those of one kind differ in ranks alone.
    macs : ndarray
        Their multiply-adds.
    build : callable
        Gives the model of a candidate by its place; slow, so only for those that are timed.
    screen : str
        The scheme to time before the others: where it gains nothing, they are not timed.
    """

    dense: onnx.ModelProto
    kinds: Sequence[tuple[str, str]]
    macs: NDArray[np.float64]
    build: Callable[[int], onnx.ModelProto]
    screen: str = ""

    def alike(self) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Yield each kind's scheme, and its places, the fewest operations first."""
        for kind in dict.fromkeys(self.kinds):
            places = np.array([place for place, each in enumerate(self.kinds) if each == kind])
            yield kind[0], places[np.argsort(self.macs[places], kind="stable")]

    def key(self, settings: str, model: onnx.ModelProto | None = None) -> str:
        """Return the key of a candidate's model under some settings; without one, of the layer."""
        dense = key_of("latency", settings, structure(self.dense))
        return dense if model is None else key_of(dense, structure(model))


Timings = tuple[Timed, dict[int, Timed]]
"""A layer's own latency, and those of its candidates, by place."""


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

    def roughly(self, groups: Sequence[Group], *, progress: Progress) -> list[Timings]:
        """Return about what layers and their candidates take, those that may be faster.

        Raises
        ------
        PlanError
            A layer's latency is unknown.
        """
        ...

    def precisely(self, group: Group, places: Sequence[int]) -> dict[int, Timed]:
        """Return what some candidates of a layer take, where it can be known better."""
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
            Layers as models of their own, and what `roughly` said of them.
        sizes : sequence of tuple of int
            Tensors ``(N, C, H, W)`` whose layout may change; none where no form has another.
        """
        ...

    def models(
        self,
        models: Sequence[onnx.ModelProto],
        feeds: Feeds,
        predicted: Sequence[float],
        *,
        precisely: bool,
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
        precisely : bool
            Whether the intervals are to be those of sessions loaded anew.
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

    def roughly(self, groups: Sequence[Group], *, progress: Progress) -> list[Timings]:
        """Time some candidates of every layer beside it, in little time.

        Of each scheme and form those of fewest and of `apart` times as many operations are timed,
        and what the others take is a power of their operations.
        """
        found = []
        for done, group in enumerate(groups):
            progress("timing candidates roughly", done, len(groups))
            found.append(self._roughly(group))
        progress("timing candidates roughly", len(groups), len(groups))
        return found

    @property
    def _where(self) -> str:
        """What latencies depend on besides the model; the usual settings go without saying."""
        engine, settings = self.stopwatch.engine.settings, self.stopwatch.settings
        return engine if settings == SETTINGS else f"{engine} {settings}"

    def _roughly(self, group: Group) -> Timings:
        settings = self.stopwatch.settings
        kinds = list(group.alike())
        # The layer itself in another form needs no fit either.
        screens = (group.screen, Dense.name) if group.screen else ()
        first = [places for scheme, places in kinds if scheme in screens]
        others = [places for scheme, places in kinds if scheme not in screens]
        found: dict[int, float] = {}
        dense = None
        for together in (first, others):
            ends = sorted({int(each) for places in together for each in self._two(group, places)})
            if ends:
                dense, timed = self._timed("rough", group, ends, settings.rough_rounds)
                found |= {place: each.ratio for place, each in timed.items()}
            screened = [r for p, r in found.items() if group.kinds[p][0] == group.screen]
            if screened and min(screened) >= 1:
                break  # what is cheapest to fit is not faster, even with the fewest operations
        if dense is None:
            dense, _ = self._timed("rough", group, [], settings.rough_rounds)
        clear = settings.clearly_slower
        for _, places in kinds:
            if int(places[0]) in found:
                two = self._two(group, places)
                (least, more), work = np.log(group.macs[two]), np.log(group.macs[places])
                first, second = np.log([found[int(place)] for place in two])
                power = (second - first) / max(more - least, 1e-9)
                ratios = np.exp(first + power * (work - least))
                found |= dict(zip(places.tolist(), ratios.tolist(), strict=True))
        return dense, {
            place: Timed(dense.seconds * ratio, ratio, ratio / clear, ratio * clear)
            for place, ratio in found.items()
            if ratio < 1
        }

    def _two(self, group: Group, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the two of candidates of one kind, ascending, that are timed roughly."""
        most = self.stopwatch.settings.apart * group.macs[places[0]]
        return places[[0, np.flatnonzero(group.macs[places] <= most)[-1]]]

    def precisely(self, group: Group, places: Sequence[int]) -> dict[int, Timed]:
        """Time candidates in turns with the layer."""
        return self._timed("latency", group, places, MIN_REPEATS)[1]

    def _timed(self, kind: str, group: Group, places: Sequence[int], rounds: int) -> Timings:
        """Return latencies from the store, or measured together where any is missing."""
        models = [group.dense, *map(group.build, places)]
        where = self._where
        keys = [group.key(where), *(group.key(where, model) for model in models[1:])]
        keys = [key_of(kind, key) for key in keys]
        known = {key: self.store.data(key, Timed.from_list) for key in keys}
        missing = [i for i, key in enumerate(keys[1:], start=1) if known[key] is None]
        if missing or known[keys[0]] is None:
            feeds = layer_feeds(group.dense, seed=self.stopwatch.seed)
            timed = self.stopwatch.in_turns(
                [models[i] for i in (0, *missing)], [feeds] * (1 + len(missing)), rounds=rounds
            )
            for i, each in zip((0, *missing), timed, strict=True):
                known[keys[i]] = each
                self.store.put_data(keys[i], each.to_list())
        dense, *found = (known[key] for key in keys)
        assert dense is not None
        return dense, {p: each for p, each in zip(places, found, strict=True) if each is not None}

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
            lambda: self._in_turns([(network, feeds) for network in networks], singles),
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
            lambda: self._in_turns([], models),
        )
        scale = seconds / found[0]
        there_and_back = zip(found[1::2], found[2::2], strict=True)
        return {
            each: max(scale * (both - idle) / 2, 0.0)
            for each, (idle, both) in zip(wanted, there_and_back, strict=True)
        }

    def models(
        self,
        models: Sequence[onnx.ModelProto],
        feeds: Feeds,
        predicted: Sequence[float],
        *,
        precisely: bool,
    ) -> list[Timed]:
        """Time whole models."""
        del predicted
        if precisely:
            return self.stopwatch.compare(models, feeds)
        return self.stopwatch.in_turns(
            models,
            [feeds] * len(models),
            rounds=MIN_REPEATS,
            least=self.stopwatch.settings.part_rounds,
        )

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

    def _in_turns(
        self, networks: Sequence[tuple[onnx.ModelProto, Feeds]], parts: Sequence[onnx.ModelProto]
    ) -> list[Timed]:
        """Time whole models and models of one input in turns.

        The machine may have been faster when one layer was timed with its candidates than when
        another was; what share of the model each takes shows only beside it.
        """
        watch = self.stopwatch
        pairs = [*networks, *((part, layer_feeds(part, seed=watch.seed)) for part in parts)]
        models, feeds = zip(*pairs, strict=True)
        rounds = watch.settings.part_rounds
        return watch.in_turns(models, feeds, rounds=rounds, least=watch.settings.rough_rounds)
