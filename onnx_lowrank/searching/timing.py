"""Times layers and whole models against each other, in onnxruntime on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.planning.latency import LatencyTable, Timed
from onnx_lowrank.runtime import Provider
from onnx_lowrank.runtime.bench import Contender, Progress, measure
from onnx_lowrank.runtime.machine import describe_machine
from onnx_lowrank.runtime.runner import OrtRunner
from onnx_lowrank.runtime.statistics import MIN_REPEATS, log_ratios, ratio_interval
from onnx_lowrank.searching.single_layer import layer_feeds, structure
from onnx_lowrank.store import Store, key_of

LAYER_SECONDS = 0.25  # of runs of each structure in a round of repeats
NARROW = 0.03  # half the interval of a ratio, relative, at which it is known well enough
MAX_REPEATS = 3 * MIN_REPEATS
Feeds = Mapping[str, NDArray[Any]]


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
        """What a latency depends on besides the model: settings, processor and versions."""
        machine = describe_machine()
        parts = [self.provider, self.threads, machine["cpu"], machine["cores"]]
        parts += machine["instruction_sets"]
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
        contenders = [
            Contender(
                str(index),
                partial(OrtRunner, model, feeds, provider=self.provider, threads=self.threads),
            )
            for index, model in enumerate(models)
        ]
        rng = np.random.default_rng(self.seed)
        logs: list[list[NDArray[np.float64]]] = [[] for _ in models]
        base: list[NDArray[np.float64]] = []
        while True:
            timings, _ = measure(
                contenders,
                repeats=MIN_REPEATS,
                seconds=seconds,
                one_thread=self.threads == 1 and self.provider == "cpu",
                rng=rng,
                progress=progress,
            )
            reference = timings[0].block_medians
            base.append(reference.ravel())
            for found, timing in zip(logs, timings, strict=True):
                found.append(log_ratios(timing.block_medians, reference))
            intervals = [ratio_interval(np.concatenate(found)) for found in logs]
            wide = [i for i in intervals[1:] if i.high / i.low > 1 + 2 * narrow]
            if not wide or sum(map(len, logs[0])) >= MAX_REPEATS:
                break
        dense = float(np.median(np.concatenate(base)))
        return [Timed(dense * i.ratio, i.ratio, i.low, i.high) for i in intervals]


def time_layers(
    groups: Sequence[Sequence[onnx.ModelProto]],
    stopwatch: Stopwatch,
    store: Store,
    table: LatencyTable,
    *,
    progress: Progress,
) -> list[list[Timed]]:
    """Time the candidates of every layer beside it; what is known is not timed again.

    Parameters
    ----------
    groups : sequence of sequence of onnx.ModelProto
        For every layer its model, and those of its candidates.
    stopwatch : Stopwatch
        How to time.
    store : Store
        Where latencies are kept, layer by layer.
    table : LatencyTable
        What is known; measurements are added to it.
    progress : callable
        Called with a sentence, the number of layers done, and their total.
    """
    found = []
    settings = stopwatch.settings
    for done, group in enumerate(groups):
        progress("timing candidates", done, len(groups))
        dense = key_of("latency", settings, structure(group[0]))
        keys = [dense, *(key_of(dense, structure(model)) for model in group[1:])]
        for key in keys:
            if key not in table.known and (row := store.data(key)) is not None:
                table.known[key] = Timed(*row)
        models = dict(zip(keys, group, strict=True))

        def timer(
            wanted: Sequence[str], models: Mapping[str, onnx.ModelProto] = models
        ) -> dict[str, Timed]:
            chosen = [models[key] for key in wanted]
            feeds = layer_feeds(chosen[0], seed=stopwatch.seed)
            timed = stopwatch.compare(chosen, feeds, seconds=LAYER_SECONDS)
            for key, each in zip(wanted, timed, strict=True):
                store.put_data(key, [each.seconds, each.ratio, each.low, each.high])
            return dict(zip(wanted, timed, strict=True))

        found.append(table.measured(keys, timer))
    progress("timing candidates", len(groups), len(groups))
    return found
