"""Whole models timed against each other under several settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from onnx_lowrank.bounds import (
    MOST_BATCH,
    MOST_REPEATS,
    MOST_SECONDS,
    MOST_WORKERS,
    check_count,
    check_number,
)
from onnx_lowrank.data import DataOptions
from onnx_lowrank.errors import OnnxLowRankError
from onnx_lowrank.measure.benchmarking.contenders import Entry
from onnx_lowrank.measure.benchmarking.result import ContenderResult, SettingResult
from onnx_lowrank.measure.workload import batch_of, make_feeds, sqnr_db
from onnx_lowrank.runtime.bench import Contender, Timing, measure
from onnx_lowrank.runtime.engines import Engine, keeps_one_core_busy
from onnx_lowrank.runtime.memory import measure_memory
from onnx_lowrank.runtime.runner import Runner
from onnx_lowrank.runtime.statistics import (
    MIN_REPEATS,
    RatioInterval,
    log_ratios,
    ratio_interval,
)
from onnx_lowrank.types import Feeds, Progress, silent


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What models are timed under, and for how long.

    Attributes
    ----------
    threads : sequence of int or None
        Threads of one run to try, one after the other; None is the engine's own choice.
    batches : sequence of int or None
        Samples at once to try; None is the number that the model fixes, or 1.
    repeats : int
        How often everything is loaded anew, `MIN_REPEATS` or more.
    seconds : float
        Time for the runs of each model under each setting, roughly.

    Raises
    ------
    OnnxLowRankError
        A number is out of range.
    """

    threads: Sequence[int | None] = (None,)
    batches: Sequence[int | None] = (None,)
    repeats: int = 10
    seconds: float = 10.0

    def __post_init__(self) -> None:
        for name, values, top in (
            ("threads", self.threads, MOST_WORKERS),
            ("batches", self.batches, MOST_BATCH),
        ):
            if not values:
                raise OnnxLowRankError(f"{name} are []; give numbers of 1 or more")
            for value in values:
                check_count(name, value, OnnxLowRankError, most=top)
        check_number(
            "repeats",
            self.repeats,
            f"an interval needs {MIN_REPEATS} or more, up to {MOST_REPEATS}",
            OnnxLowRankError,
            least=MIN_REPEATS,
            most=MOST_REPEATS,
        )
        check_number(
            "seconds",
            self.seconds,
            "give more than 0, up to a day",
            OnnxLowRankError,
            above=0,
            most=MOST_SECONDS,
        )


def compare(
    entries: Sequence[Entry],
    settings: BenchSettings,
    samples: DataOptions,
    folder: Path,
    *,
    progress: Progress = silent,
) -> tuple[SettingResult, ...]:
    """Time models against the first, on the same inputs, under each setting.

    Every repeat loads all models anew, in random order; its rounds time blocks of runs in random
    order. Ratios are taken within a round and their interval over the repeats, see
    `onnx_lowrank.runtime.statistics.ratio_interval`.

    Parameters
    ----------
    entries : sequence of Entry
        The models.
    settings : BenchSettings
        What they are timed under.
    samples : DataOptions
        Where inputs come from, random ones where it has no source; its seed fixes all orders.
    folder : path
        Where models are written that have no file.
    progress : callable
        Called with a sentence, the number of steps done, and their total.

    Raises
    ------
    ProviderError
        An engine was not used.
    ModelError, DataError
        A model cannot be run or brought to a batch size, or the inputs cannot be made.
    """
    rng = np.random.default_rng(samples.seed)
    results = []
    for batch in settings.batches:
        at_batch = [entry.at_batch(batch, samples) for entry in entries]
        feeds = make_feeds(at_batch[0].workload.model, batch, samples)
        paths = [e.workload.file(folder, f"{k}-{batch}") for k, e in enumerate(at_batch)]
        for count in settings.threads:

            def step(
                what: str,
                done: int,
                total: int,
                title: str = f"batch {batch or 'as is'}, threads {count or 'as is'}",
            ) -> None:
                progress(f"{title}: {what}", done, total)

            setting = _Setting(count, settings.repeats, settings.seconds, rng, step)
            results.append(_measured(at_batch, paths, feeds, setting))
    return tuple(results)


@dataclass(frozen=True)
class _Setting:
    """How contenders are timed."""

    threads: int | None
    repeats: int
    seconds: float
    rng: np.random.Generator
    progress: Progress


def _measured(
    entries: Sequence[Entry], paths: Sequence[Path], feeds: Feeds, setting: _Setting
) -> SettingResult:
    session: dict[str, str] = {}

    def load(path: Path, engine: Engine) -> Runner:
        runner = engine.runner(path, feeds)
        session.update(runner.settings)
        return runner

    engines = [entry.engine.with_threads(setting.threads) for entry in entries]
    timings, noise = measure(
        [
            Contender(entry.name, partial(load, path, engine))
            for entry, path, engine in zip(entries, paths, engines, strict=True)
        ],
        repeats=setting.repeats,
        seconds=setting.seconds,
        one_thread=all(map(keeps_one_core_busy, engines)),
        rng=setting.rng,
        progress=setting.progress,
    )
    batch = batch_of(entries[0].workload.model, feeds)
    contenders = []
    for entry, path, engine, timing in zip(entries, paths, engines, timings, strict=True):
        setting.progress(f"memory of {entry.name}", setting.repeats, setting.repeats)
        first = timing is timings[0]
        contenders.append(
            ContenderResult(
                name=entry.name,
                latency=timing.latency,
                throughput=batch / timing.latency.mean,
                load_seconds=float(np.median(timing.load)),
                file_size=entry.workload.file_size,
                memory=measure_memory(path, feeds, engine=engine),
                ratio=None if first else _ratio(timing, timings[0]),
                sqnr_db=None if first else sqnr_db(timings[0].outputs, timing.outputs),
                differing_blocks=timing.differing,
            )
        )
    rounds = timings[0].blocks.shape[1]
    return SettingResult(
        batch, setting.threads, setting.repeats, rounds, tuple(contenders), noise, session
    )


def _ratio(timing: Timing, reference: Timing) -> RatioInterval:
    return ratio_interval(log_ratios(timing.block_medians, reference.block_medians))
