"""`benchmark`: latency and throughput of whole models against each other."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnx_lowrank.bounds import (
    MOST_BATCH,
    MOST_REPEATS,
    MOST_SECONDS,
    MOST_WORKERS,
    check_count,
    check_number,
)
from onnx_lowrank.data import Preprocess
from onnx_lowrank.errors import ModelError, OnnxLowRankError, ProviderError
from onnx_lowrank.measure.benchmarking.result import BenchReport, ContenderResult, SettingResult
from onnx_lowrank.measure.workload import Workload, batch_of, make_feeds, sqnr_db
from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.runtime.bench import Contender, Timing, measure
from onnx_lowrank.runtime.engines import (
    Engine,
    OpenVinoEngine,
    keeps_one_core_busy,
    open_engine,
)
from onnx_lowrank.runtime.int8 import quantise
from onnx_lowrank.runtime.machine import describe_machine
from onnx_lowrank.runtime.memory import measure_memory
from onnx_lowrank.runtime.runner import Runner
from onnx_lowrank.runtime.statistics import (
    MIN_REPEATS,
    RatioInterval,
    log_ratios,
    ratio_interval,
)
from onnx_lowrank.types import Feeds, ModelSource, Progress, silent

CALIBRATION_SAMPLES = 8


@dataclass(frozen=True)
class _Entry:
    """What one contender is: a model and what runs it."""

    name: str
    workload: Workload
    engine: Engine


def benchmark(
    models: Sequence[ModelSource],
    *,
    engine: str = "cpu",
    threads: Sequence[int | None] = (None,),
    batches: Sequence[int | None] = (None,),
    repeats: int = 10,
    seconds: float = 10.0,
    int8: bool = False,
    openvino: bool = False,
    data: Any = None,
    preprocess: Preprocess | str | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> BenchReport:
    """Time models against each other on the same inputs.

    Every repeat loads all models anew, in random order; its rounds time blocks of runs in random
    order. Ratios are taken within a round and their interval over the repeats, see
    `onnx_lowrank.runtime.statistics.ratio_interval`.

    Parameters
    ----------
    models : sequence of path, bytes or ModelProto
        The first is what the others are compared with; one may occur twice.
    engine : {"cpu", "cuda", "openvino"}
        Where to run: onnxruntime on the CPU or on CUDA, or OpenVINO.
    threads : sequence of int or None
        Threads of one run to try, one after the other; None is the engine's own choice.
    batches : sequence of int or None
        Samples at once to try; None is the number that the model fixes, or 1.
    repeats : int
        How often everything is loaded anew, `MIN_REPEATS` or more.
    seconds : float
        Time for the runs of each model under each setting, roughly.
    int8 : bool
        Whether onnxruntime's static quantisation of the first model takes part too.
    openvino : bool
        Whether the first model in OpenVINO takes part too; a note says so if it cannot.
    data, preprocess : optional
        Inputs, as of `onnx_lowrank.data.open_dataset`; random ones by default. They also give
        the 8-bit model its ranges.
    input_shapes : mapping of str to sequence of int, optional
        Input name -> full shape, for sizes that a model leaves open.
    seed : int
        Seed of random inputs and of all orders.
    progress : callable
        Called with a sentence, the number of steps done, and their total.

    Raises
    ------
    OnnxLowRankError
        A number is out of range.
    ProviderError
        The engine is unknown, missing or was not used.
    ModelError, DataError
        A model cannot be read, run, brought to a batch size, or takes other inputs than the first.
    """
    _check(models, threads, batches, repeats, seconds)
    where = open_engine(engine)
    where.require()
    rng = np.random.default_rng(seed)
    feeds_of = partial(
        make_feeds, data=data, preprocess=preprocess, input_shapes=input_shapes, seed=seed
    )
    with tempfile.TemporaryDirectory(prefix="onnx_lowrank-") as folder:
        progress("reading the models", 0, 1)
        entries = _entries(models, where)
        notes = [*where.notes]
        if int8:
            progress("quantising to int8", 0, 1)
            entries.append(_int8(entries[0], Path(folder), data, preprocess, input_shapes, seed))
            if data is None:
                notes.append("the int8 model has its ranges from random inputs; data are better")
        if openvino:
            try:
                entries.append(_in_openvino(entries[0]))
            except ProviderError as error:
                notes.append(f"OpenVINO was left out: {error}")
        results = []
        for batch in batches:
            at_batch = [
                _Entry(
                    entry.name,
                    entry.workload.at_batch(batch, input_shapes=input_shapes, seed=seed),
                    entry.engine,
                )
                for entry in entries
            ]
            feeds = feeds_of(at_batch[0].workload.model, batch)
            paths = [e.workload.file(folder, f"{k}-{batch}") for k, e in enumerate(at_batch)]
            for count in threads:

                def step(
                    what: str,
                    done: int,
                    total: int,
                    title: str = f"batch {batch or 'as is'}, threads {count or 'as is'}",
                ) -> None:
                    progress(f"{title}: {what}", done, total)

                setting = _Setting(count, repeats, seconds, rng, step)
                results.append(_measured(at_batch, paths, feeds, setting))
    return BenchReport(engine, tuple(results), seed, describe_machine(), tuple(notes))


def _check(
    models: Sequence[ModelSource],
    threads: Sequence[int | None],
    batches: Sequence[int | None],
    repeats: int,
    seconds: float,
) -> None:
    if not models:
        raise OnnxLowRankError("there is no model to measure; give one or more")
    for name, values, top in (
        ("threads", threads, MOST_WORKERS),
        ("batches", batches, MOST_BATCH),
    ):
        if not values:
            raise OnnxLowRankError(f"{name} are []; give numbers of 1 or more")
        for value in values:
            check_count(name, value, OnnxLowRankError, most=top)
    check_number(
        "repeats",
        repeats,
        f"an interval needs {MIN_REPEATS} or more, up to {MOST_REPEATS}",
        OnnxLowRankError,
        least=MIN_REPEATS,
        most=MOST_REPEATS,
    )
    check_number(
        "seconds",
        seconds,
        "give more than 0, up to a day",
        OnnxLowRankError,
        above=0,
        most=MOST_SECONDS,
    )


def _entries(models: Sequence[ModelSource], engine: Engine) -> list[_Entry]:
    entries: list[_Entry] = []
    for source in models:
        workload = Workload.open(source)
        taken = {entry.name for entry in entries}
        name, number = workload.name, 2
        while name in taken:
            name, number = f"{workload.name} #{number}", number + 1
        entries.append(_Entry(name, workload, engine))
    first = {i.name: i.type for i in model_inputs(entries[0].workload.model)}
    for entry in entries[1:]:
        found = {i.name: i.type for i in model_inputs(entry.workload.model)}
        if found != first:
            raise ModelError(
                f"{entry.name} takes {_names(found)}, but {entries[0].name} takes {_names(first)}; "
                "compare models with the same inputs"
            )
    return entries


def _names(inputs: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in inputs.items()) or "nothing"


def _in_openvino(first: _Entry) -> _Entry:
    """Return the first contender in OpenVINO; raise ProviderError where that cannot be compared."""
    engine = OpenVinoEngine()
    if first.engine.device != engine.device:
        raise ProviderError(f"it is compared on the CPU, not on {first.engine.name}")
    if first.engine.name == engine.name:
        raise ProviderError("all models run there already")
    engine.require()
    return _Entry(f"{first.name} (OpenVINO {engine.version})", first.workload, engine)


def _int8(
    entry: _Entry,
    folder: Path,
    data: Any,
    preprocess: Preprocess | str | None,
    input_shapes: Mapping[str, Sequence[int]] | None,
    seed: int,
) -> _Entry:
    model = entry.workload.model
    path = folder / "int8.onnx"
    feeds: list[Feeds] = [
        make_feeds(
            model,
            None,
            data=data,
            preprocess=preprocess,
            input_shapes=input_shapes,
            # Apart from those that are timed, which would flatter its error.
            seed=seed + 1 + number,
        )
        for number in range(CALIBRATION_SAMPLES)
    ]
    quantise(model, path, feeds)
    return _Entry(f"{entry.name} (int8)", Workload.open(path), entry.engine)


@dataclass(frozen=True)
class _Setting:
    """How contenders are timed."""

    threads: int | None
    repeats: int
    seconds: float
    rng: np.random.Generator
    progress: Progress


def _measured(
    entries: Sequence[_Entry], paths: Sequence[Path], feeds: Feeds, setting: _Setting
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
