"""Times layers and whole models against each other, in an engine on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.planning.latency import Timed
from onnx_lowrank.runtime.bench import Contender, measure
from onnx_lowrank.runtime.engines import CPU, Engine, keeps_one_core_busy
from onnx_lowrank.runtime.statistics import MIN_REPEATS, log_ratios, ratio_interval
from onnx_lowrank.search.settings import SETTINGS, SearchSettings
from onnx_lowrank.search.single_layer import layer_feeds
from onnx_lowrank.types import Feeds, Progress, silent


@dataclass(frozen=True)
class Stopwatch:
    """Where and how models are timed.

    Attributes
    ----------
    engine : Engine
        Where they run, and on how many threads.
    seed : int
        Seed of inputs and orders.
    settings : SearchSettings
        How long, how often and how precisely.
    """

    engine: Engine = CPU
    seed: int = 0
    settings: SearchSettings = SETTINGS

    def compare(
        self,
        models: Sequence[onnx.ModelProto],
        feeds: Feeds,
        *,
        seconds: float,
        progress: Progress = silent,
    ) -> list[Timed]:
        """Time models against the first, until every ratio is known well enough.

        Parameters
        ----------
        models : sequence of onnx.ModelProto
            The first is the reference.
        feeds : mapping of str to ndarray
            One input for all.
        seconds : float
            Most time for the runs of each, roughly, before a look at the intervals: a quarter of
            it before the first.
        progress : callable
            Called with a sentence, the number of repeats done, and their total.

        Returns
        -------
        list of Timed
            In the order of `models`; the first one's ratio is 1.
        """
        return self._compare([(model, feeds) for model in models], seconds, progress)

    def side_by_side(
        self,
        networks: Sequence[onnx.ModelProto],
        feeds: Feeds,
        parts: Sequence[onnx.ModelProto],
        *,
        seconds: float,
    ) -> list[Timed]:
        """Time whole models and layers, as models of their own, in one interleaved run.

        The machine may have been faster when one layer was timed with its candidates than when
        another was; what share of the model each takes shows only beside it.

        Parameters
        ----------
        networks : sequence of onnx.ModelProto
            The model, to whose latency every ratio is, and others of the same inputs.
        feeds : mapping of str to ndarray
            Their input.
        parts : sequence of onnx.ModelProto
            Its layers.
        seconds : float
            Time for the runs of each, roughly.

        Returns
        -------
        list of Timed
            Of `networks`, then of `parts`.
        """
        models = [(network, feeds) for network in networks]
        models += [(part, layer_feeds(part, seed=self.seed)) for part in parts]
        return self._compare(models, seconds)

    def beside(self, parts: Sequence[onnx.ModelProto], *, seconds: float) -> list[Timed]:
        """Time models of one input each against the first."""
        models = [(part, layer_feeds(part, seed=self.seed)) for part in parts]
        return self._compare(models, seconds)

    def _compare(
        self,
        models: Sequence[tuple[onnx.ModelProto, Feeds]],
        seconds: float,
        progress: Progress = silent,
    ) -> list[Timed]:
        most, narrow = self.settings.most_repeats, self.settings.narrow
        spent = seconds / 4
        contenders = self._contenders(models)
        rng = np.random.default_rng(self.seed)
        logs: list[list[NDArray[np.float64]]] = [[] for _ in models]
        base: list[NDArray[np.float64]] = []
        wide = list(range(1, len(models)))  # those that are not known well enough
        while True:
            timings, _ = measure(
                [contenders[place] for place in (0, *wide)],
                repeats=MIN_REPEATS,
                seconds=spent,
                least_rounds=1,  # repeats are many, and an interval of signed ranks bears outliers
                one_thread=keeps_one_core_busy(self.engine),
                rng=rng,
                progress=progress,
            )
            reference = timings[0].block_medians
            base.append(reference.ravel())
            for place, timing in zip((0, *wide), timings, strict=True):
                logs[place].append(log_ratios(timing.block_medians, reference))
            intervals = [ratio_interval(np.concatenate(found)) for found in logs]
            wide = [i for i in wide if intervals[i].high / intervals[i].low > 1 + 2 * narrow]
            if not wide or sum(map(len, logs[0])) >= most:
                break
            spent = min(2 * spent, seconds)
        dense = float(np.median(np.concatenate(base)))
        return [Timed(dense * i.ratio, i.ratio, i.low, i.high) for i in intervals]

    def rough(self, models: Sequence[onnx.ModelProto], feeds: Feeds) -> NDArray[np.float64]:
        """Return roughly the latency of each model over the first one's, in little time."""
        timings, _ = measure(
            self._contenders([(model, feeds) for model in models]),
            repeats=self.settings.rough_repeats,
            seconds=0.0,
            least_rounds=1,
            one_thread=keeps_one_core_busy(self.engine),
            rng=np.random.default_rng(self.seed),
        )
        reference = timings[0].block_medians
        logs = [log_ratios(timing.block_medians, reference).mean() for timing in timings]
        return np.asarray(np.exp(logs))

    def _contenders(self, models: Sequence[tuple[onnx.ModelProto, Feeds]]) -> list[Contender]:
        return [
            Contender(str(index), partial(self.engine.runner, model, feeds))
            for index, (model, feeds) in enumerate(models)
        ]
