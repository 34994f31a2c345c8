"""`benchmark`: latency and throughput of whole models against each other."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnx_lowrank.data import DataOptions, Preprocess
from onnx_lowrank.errors import OnnxLowRankError, ProviderError
from onnx_lowrank.measure.benchmarking.compare import BenchSettings, compare
from onnx_lowrank.measure.benchmarking.contenders import in_int8, in_openvino, open_entries
from onnx_lowrank.measure.benchmarking.result import BenchReport
from onnx_lowrank.runtime.engines import open_engine
from onnx_lowrank.runtime.machine import describe_machine
from onnx_lowrank.types import ModelSource, Progress, silent


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
    if not models:
        raise OnnxLowRankError("there is no model to measure; give one or more")
    settings = BenchSettings(threads=threads, batches=batches, repeats=repeats, seconds=seconds)
    samples = DataOptions(data=data, preprocess=preprocess, input_shapes=input_shapes, seed=seed)
    where = open_engine(engine)
    where.require()
    with tempfile.TemporaryDirectory(prefix="onnx_lowrank-") as name:
        folder = Path(name)
        progress("reading the models", 0, 1)
        entries = open_entries(models, where)
        notes = [*where.notes]
        if int8:
            progress("quantising to int8", 0, 1)
            entries.append(in_int8(entries[0], folder, samples))
            if data is None:
                notes.append("the int8 model has its ranges from random inputs; data are better")
        if openvino:
            try:
                entries.append(in_openvino(entries[0]))
            except ProviderError as error:
                notes.append(f"OpenVINO was left out: {error}")
        results = compare(entries, settings, samples, folder, progress=progress)
    return BenchReport(engine, results, seed, describe_machine(), tuple(notes))
