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
from onnx_lowrank.types import Feeds


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
    ) -> list[Timed]:
        """Time models against the first, until every ratio is known well enough.

        Parameters
        ----------
        models : sequence of onnx.ModelProto
            The first is the reference.
        feeds : mapping of str to ndarray
            One input for all.

        Returns
        -------
        list of Timed
            In the order of `models`; the first one's ratio is 1.
        """
        most, narrow = self.settings.most_repeats, self.settings.narrow
        spent = self.settings.model_seconds / 16
        contenders = self._contenders([(model, feeds) for model in models])
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
            )
            reference = timings[0].block_medians
            base.append(reference.ravel())
            for place, timing in zip((0, *wide), timings, strict=True):
                logs[place].append(log_ratios(timing.block_medians, reference))
            intervals = [ratio_interval(np.concatenate(found)) for found in logs]
            wide = [i for i in wide if intervals[i].high / intervals[i].low > 1 + 2 * narrow]
            if not wide or sum(map(len, logs[0])) >= most:
                break
            spent = min(4 * spent, self.settings.model_seconds)
        dense = float(np.median(np.concatenate(base)))
        return [Timed(dense * i.ratio, i.ratio, i.low, i.high) for i in intervals]

    def in_turns(
        self,
        models: Sequence[onnx.ModelProto],
        feeds: Sequence[Feeds],
        *,
        rounds: int,
        least: int | None = None,
    ) -> list[Timed]:
        """Load models once and time them in turns: quicker than `compare`, and less certain.

        Parameters
        ----------
        models : sequence of onnx.ModelProto
            The first is the reference.
        feeds : sequence of mapping of str to ndarray
            The input of each.
        rounds : int
            How often each has its turn.
        least : int, optional
            Rounds of models that take longer: where more would take over `model_seconds`.

        Returns
        -------
        list of Timed
            In the order of `models`. The interval tells nothing of what loading a model anew
            changes; of few rounds it is `clearly_slower` either way.
        """
        (reference, *others), _ = measure(
            self._contenders(list(zip(models, feeds, strict=True))),
            repeats=1,
            seconds=self.settings.model_seconds,
            least_rounds=least or rounds,
            most_rounds=rounds,
            one_thread=keeps_one_core_busy(self.engine),
            rng=np.random.default_rng(self.seed),
        )
        base = reference.block_medians[0]
        dense, clear = float(np.median(base)), self.settings.clearly_slower
        found = [Timed(dense, 1.0, 1.0, 1.0)]
        for other in others:
            logs = np.log(other.block_medians[0]) - np.log(base)
            if len(logs) >= MIN_REPEATS:
                interval = ratio_interval(logs)
                low, ratio, high = interval.low, interval.ratio, interval.high
            else:
                ratio = float(np.exp(np.median(logs)))
                low, high = ratio / clear, ratio * clear
            found.append(Timed(dense * ratio, ratio, low, high))
        return found

    def _contenders(self, models: Sequence[tuple[onnx.ModelProto, Feeds]]) -> list[Contender]:
        return [
            Contender(str(index), partial(self.engine.runner, model, feeds))
            for index, (model, feeds) in enumerate(models)
        ]
