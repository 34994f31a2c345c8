"""Times layers and whole models against each other, in onnxruntime on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.cache import Cache, key_of
from onnx_lowrank.errors import PlanError
from onnx_lowrank.planning.latency import LatencyTable, SavedLatencies, Timed, Timer
from onnx_lowrank.runtime import Provider
from onnx_lowrank.runtime.bench import Contender, measure
from onnx_lowrank.runtime.machine import describe_machine
from onnx_lowrank.runtime.runner import OrtRunner
from onnx_lowrank.runtime.session import custom_ops_library
from onnx_lowrank.runtime.statistics import MIN_REPEATS, log_ratios, ratio_interval
from onnx_lowrank.searching.single_layer import layer_feeds, structure
from onnx_lowrank.types import Feeds, Progress

LAYER_SECONDS = 0.1  # of runs of each structure in a round of repeats
PART_SECONDS = 1.0  # of runs of a model and of each of its layers, side by side
NARROW = 0.05  # half the interval of a ratio, relative, at which it is known well enough
MAX_REPEATS = 2 * MIN_REPEATS
GLANCE_REPEATS = 2
ELSEWHERE = ""  # the settings in the keys of saved latencies: the table as a whole tells them
CLEAR = 1.15  # ratio of two latencies at a glance that is no chance


@dataclass(frozen=True)
class Stopwatch:
    """Where and how models are timed.

    Attributes
    ----------
    provider : {"cpu", "cuda"}
        Where they run.
    threads : int or None
        Intra-op threads; None is onnxruntime's own choice.
    seed : int
        Seed of inputs and orders.
    """

    provider: Provider = "cpu"
    threads: int | None = None
    seed: int = 0

    @property
    def settings(self) -> str:
        """What a latency depends on besides the model: settings, processor, versions, kernels."""
        machine = describe_machine()
        parts = [self.provider, self.threads, machine["cpu"], machine["cores"]]
        parts += machine["instruction_sets"]
        library, _ = custom_ops_library(self.provider)
        if library is not None:
            parts.append(hashlib.sha256(Path(library).read_bytes()).hexdigest())
        runtimes = sorted(v for v in machine["versions"].items() if v[0].startswith("onnxruntime"))
        return " ".join(map(str, [*parts, *runtimes]))

    def compare(
        self,
        models: Sequence[onnx.ModelProto],
        feeds: Feeds,
        *,
        seconds: float,
        narrow: float = NARROW,
        progress: Progress | None = None,
    ) -> list[Timed]:
        """Time models against the first, until every ratio is known well enough.

        Parameters
        ----------
        models : sequence of onnx.ModelProto
            The first is the reference.
        feeds : mapping of str to ndarray
            One input for all.
        seconds : float
            Time for the runs of each, roughly, before a look at the intervals.
        narrow : float
            Half of an interval's width, relative, at which it is narrow enough.
        progress : callable, optional
            Called with a sentence, the number of repeats done, and their total.

        Returns
        -------
        list of Timed
            In the order of `models`; the first one's ratio is 1.
        """
        return self._compare([(model, feeds) for model in models], seconds, narrow, progress)

    def side_by_side(
        self, wholes: Sequence[onnx.ModelProto], feeds: Feeds, parts: Sequence[onnx.ModelProto]
    ) -> list[Timed]:
        """Time whole models and layers, as models of their own, in one interleaved run.

        The machine may have been faster when one layer was timed with its candidates than when
        another was; what share of the model each takes shows only beside it.

        Parameters
        ----------
        wholes : sequence of onnx.ModelProto
            The model, to whose latency every ratio is, and others of the same inputs.
        feeds : mapping of str to ndarray
            Their input.
        parts : sequence of onnx.ModelProto
            Its layers.

        Returns
        -------
        list of Timed
            Of `wholes`, then of `parts`.
        """
        models = [(whole, feeds) for whole in wholes]
        models += [(part, layer_feeds(part, seed=self.seed)) for part in parts]
        return self._compare(models, PART_SECONDS, NARROW, None)

    def _compare(
        self,
        models: Sequence[tuple[onnx.ModelProto, Feeds]],
        seconds: float,
        narrow: float,
        progress: Progress | None,
    ) -> list[Timed]:
        contenders = self._contenders(models)
        rng = np.random.default_rng(self.seed)
        logs: list[list[NDArray[np.float64]]] = [[] for _ in models]
        base: list[NDArray[np.float64]] = []
        wide = list(range(1, len(models)))  # those that are not known well enough
        while True:
            timings, _ = measure(
                [contenders[place] for place in (0, *wide)],
                repeats=MIN_REPEATS,
                seconds=seconds,
                one_thread=self.threads == 1 and self.provider == "cpu",
                rng=rng,
                progress=progress,
            )
            reference = timings[0].block_medians
            base.append(reference.ravel())
            for place, timing in zip((0, *wide), timings, strict=True):
                logs[place].append(log_ratios(timing.block_medians, reference))
            intervals = [ratio_interval(np.concatenate(found)) for found in logs]
            wide = [i for i in wide if intervals[i].high / intervals[i].low > 1 + 2 * narrow]
            if not wide or sum(map(len, logs[0])) >= MAX_REPEATS:
                break
        dense = float(np.median(np.concatenate(base)))
        return [Timed(dense * i.ratio, i.ratio, i.low, i.high) for i in intervals]

    def glance(self, models: Sequence[onnx.ModelProto], feeds: Feeds) -> NDArray[np.float64]:
        """Return roughly the latency of each model over the first one's, in little time."""
        timings, _ = measure(
            self._contenders([(model, feeds) for model in models]),
            repeats=GLANCE_REPEATS,
            seconds=0.0,  # the fewest rounds
            one_thread=self.threads == 1 and self.provider == "cpu",
            rng=np.random.default_rng(self.seed),
        )
        reference = timings[0].block_medians
        logs = [log_ratios(timing.block_medians, reference).mean() for timing in timings]
        return np.asarray(np.exp(logs))

    def _contenders(self, models: Sequence[tuple[onnx.ModelProto, Feeds]]) -> list[Contender]:
        return [
            Contender(
                str(index),
                partial(OrtRunner, model, feeds, provider=self.provider, threads=self.threads),
            )
            for index, (model, feeds) in enumerate(models)
        ]


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
    """

    dense: onnx.ModelProto
    candidates: Sequence[onnx.ModelProto]
    errors: NDArray[np.float64]

    def keys(self, settings: str) -> list[str]:
        """Return the key of the layer and those of the candidates, under some settings."""
        dense = key_of("latency", settings, structure(self.dense))
        return [dense, *(key_of(dense, structure(model)) for model in self.candidates)]


def time_layers(
    groups: Sequence[Group],
    stopwatch: Stopwatch,
    store: Cache,
    table: LatencyTable | SavedLatencies,
    *,
    progress: Progress,
) -> list[tuple[Timed, dict[int, Timed]]]:
    """Time the candidates of every layer beside it; what is known is not timed again.

    All get a glance; those that another one beats in error and clearly in latency are left out of
    the measurement proper. With latencies saved on another machine, nothing is timed: candidates
    that are not among them are left out.

    Parameters
    ----------
    groups : sequence of Group
        The layers.
    stopwatch : Stopwatch
        How to time.
    store : Cache
        Where latencies are kept, layer by layer.
    table : LatencyTable or SavedLatencies
        What is known, to which measurements are added; or all that may be known.
    progress : callable
        Called with a sentence, the number of layers done, and their total.

    Returns
    -------
    list of (Timed, dict of int to Timed)
        For every layer its own latency, and those of the candidates that are worth it, by place.

    Raises
    ------
    PlanError
        The saved latencies lack a layer.
    """
    if isinstance(table, SavedLatencies):
        return [_saved(group, table) for group in groups]
    found = []
    settings = stopwatch.settings
    for done, group in enumerate(groups):
        progress("timing candidates", done, len(groups))
        feeds = layer_feeds(group.dense, seed=stopwatch.seed)
        dense, *keys = group.keys(settings)
        models = {dense: group.dense, **dict(zip(keys, group.candidates, strict=True))}

        def glance(
            wanted: Sequence[str],
            models: Mapping[str, onnx.ModelProto] = models,
            feeds: Feeds = feeds,
        ) -> dict[str, Timed]:
            ratios = stopwatch.glance([models[key] for key in wanted], feeds)
            return {k: Timed(0.0, r, r, r) for k, r in zip(wanted, ratios.tolist(), strict=True)}

        def timer(
            wanted: Sequence[str],
            models: Mapping[str, onnx.ModelProto] = models,
            feeds: Feeds = feeds,
        ) -> dict[str, Timed]:
            timed = stopwatch.compare([models[k] for k in wanted], feeds, seconds=LAYER_SECONDS)
            return dict(zip(wanted, timed, strict=True))

        rough = _kept("glance", [dense, *keys], store, LatencyTable(), glance)
        ratios = np.array([each.ratio for each in rough[1:]])
        chosen = [
            place
            for place in range(len(keys))
            if not np.any((ratios * CLEAR <= ratios[place]) & (group.errors <= group.errors[place]))
            and ratios[place] < CLEAR
        ]
        first, *timed = _kept(
            "latency", [dense, *(keys[place] for place in chosen)], store, table, timer
        )
        found.append((first, dict(zip(chosen, timed, strict=True))))
    progress("timing candidates", len(groups), len(groups))
    return found


def _saved(group: Group, table: SavedLatencies) -> tuple[Timed, dict[int, Timed]]:
    """Return what a table made elsewhere says of a layer, savings scaled to those of models."""
    layer, *keys = group.keys(ELSEWHERE)
    if layer not in table.known:
        raise PlanError(
            f"the latencies of {table.name} lack the layer '{group.dense.graph.node[0].name}': "
            "they are of another model, input shape or opset; make them anew from this model"
        )
    dense = table.known[layer]
    found = {}
    for place, key in enumerate(keys):
        if (timed := table.known.get(key)) is not None:
            saved = table.scale * (dense.seconds - timed.seconds)
            found[place] = replace(timed, seconds=dense.seconds - saved)
    return dense, found


def _kept(
    kind: str, keys: Sequence[str], store: Cache, table: LatencyTable, timer: Timer
) -> list[Timed]:
    """Return the latencies of `keys`, from the table, the store, or the timer."""
    for key in keys:
        if key in table.known:
            continue
        if (timed := store.data(key_of(kind, key), Timed.from_list)) is not None:
            table.known[key] = timed

    def storing(wanted: Sequence[str]) -> Mapping[str, Timed]:
        timed = timer(wanted)
        for key, each in timed.items():
            store.put_data(key_of(kind, key), each.to_list())
        return timed

    return table.measured(keys, storing)
