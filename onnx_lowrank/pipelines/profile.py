"""`profile`: where the time of a forward pass goes, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx_lowrank.bounds import MOST_BATCH, check_count
from onnx_lowrank.data import DataOptions, Preprocess
from onnx_lowrank.errors import OnnxLowRankError
from onnx_lowrank.measure.profiling.forward import (
    ProfileSettings,
    profile_models,
    require_profiler,
)
from onnx_lowrank.measure.profiling.result import ProfileReport
from onnx_lowrank.measure.workload import Workload, make_feeds
from onnx_lowrank.runtime.engines import onnxruntime_provider
from onnx_lowrank.types import ModelSource, Progress, silent


def profile(
    model: ModelSource,
    *,
    compare: ModelSource | None = None,
    engine: str = "cpu",
    threads: int | None = None,
    batch: int | None = None,
    runs: int = 8,
    data: Any = None,
    preprocess: Preprocess | str | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> ProfileReport:
    """Measure the time of every layer of a model with onnxruntime's own profiler.

    Parameters
    ----------
    model : path, bytes or ModelProto
        The model.
    compare : path, bytes or ModelProto, optional
        A model made from it, which is measured by turns with it.
    engine : {"cpu", "cuda"}
        Where to run.
    threads : int, optional
        Intra-op threads; onnxruntime's own choice by default.
    batch : int, optional
        Samples at once; by default the number that the model fixes, or 1.
    runs : int
        Runs to take mean and standard deviation of, `MIN_RUNS` or more.
    data, preprocess, input_shapes, seed
        As of `onnx_lowrank.benchmark`.
    progress : callable
        Called with a sentence, the number of runs done, and their total.

    Raises
    ------
    OnnxLowRankError
        `runs` is too small.
    ProviderError
        The engine is not onnxruntime, is missing or was not used.
    ModelError, DataError
        A model or its inputs cannot be read or run.
    """
    check_count("batch", batch, OnnxLowRankError, most=MOST_BATCH)
    provider = onnxruntime_provider(engine, "a profile")
    settings = ProfileSettings(provider=provider, threads=threads, runs=runs)
    samples = DataOptions(data=data, preprocess=preprocess, input_shapes=input_shapes, seed=seed)
    notes = require_profiler(provider)
    progress("reading the model", 0, runs)
    workloads = [
        Workload.open(source).at_batch(batch, input_shapes=input_shapes, seed=seed)
        for source in ([model] if compare is None else [model, compare])
    ]
    feeds = make_feeds(workloads[0].model, batch, samples)
    return profile_models(workloads, feeds, settings, notes=notes, progress=progress)
