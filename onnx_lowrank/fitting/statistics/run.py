"""`calibrate`: the moments of what layers see, from data, kept by content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from onnx_lowrank.cache import Cache, key_of
from onnx_lowrank.data import Dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.fitting.statistics.collect import collect, measure_sizes, open_with_outputs
from onnx_lowrank.fitting.statistics.jobs import SAMPLING, Job, Passes, Sampling, Survey, find_jobs
from onnx_lowrank.fitting.statistics.stored import StoredStatistics, read_statistics
from onnx_lowrank.graph.digest import model_digest
from onnx_lowrank.layer_errors import LAYER_ERRORS, layer_reason
from onnx_lowrank.runtime.engines import CPU, Engine
from onnx_lowrank.types import Progress, silent

FORMAT = 3  # of the stored entries and of the arithmetic behind them; part of their keys


def calibrate(
    model: onnx.ModelProto,
    dataset: Dataset,
    layers: Sequence[str],
    *,
    sampling: Sampling = SAMPLING,
    engine: Engine = CPU,
    cache_dir: Path | None = None,
    survey: Survey | None = None,
    progress: Progress = silent,
) -> StoredStatistics:
    """Accumulate the moments of the input patches of layers.

    Of every image all output positions of a layer are looked at, or `sampling.positions` of them,
    drawn evenly without replacement by a generator that depends on `sampling.seed`, on the layer's
    input and attributes and on the image's number only. An image counts by its number of output
    positions. Layers of one input and geometry share their statistics. Of a layer whose moments
    would be larger than `sampling.layer_limit`, the samples themselves are kept, as many as fit.

    One layer never ends the run: one that the data do not suit is in `refused` of the result.

    The data are read once more than the model runs over them: first for their number, sizes and
    content.

    Parameters
    ----------
    model : onnx.ModelProto
        The original model, its weights in it; not changed.
    dataset : Dataset
        Images for its inputs.
    layers : sequence of str
        Names of layers, as `find_layers` gives them.
    sampling : Sampling
        How many positions of an image are looked at, and in how much memory.
    engine : Engine
        On whose device, and on how many threads, onnxruntime runs the model.
    cache_dir : path, optional
        Where results are kept, by the content of models, data and settings; a temporary folder,
        removed with the result, if not given.
    survey : Survey, optional
        What a first look at `dataset` told, where the caller has taken one.
    progress : callable
        Called with a sentence, the number of images done, and their total over all passes.

    Returns
    -------
    StoredStatistics
        By layer name, in the order of `layers`. A value is read from disk at each access: all of
        them need not fit into memory together. `refused` says of the other layers why there are
        none: NaN or Inf in its input, an input without an axis of images, moments too large.

    Raises
    ------
    PlanError
        A layer is unknown, or cannot be read.
    DataError
        What the data set raises.
    ModelError, ProviderError
        The model does not run.
    OutputError
        The results cannot be written.
    """
    survey = survey or Survey.of(dataset)
    jobs = find_jobs(model, layers, survey.shapes)
    common = _common_key(model, survey, sampling, engine)
    cache = Cache.in_temporary_folder() if cache_dir is None else Cache(cache_dir)
    entries = {job.key: _entry(common, job) for job in jobs.values()}
    missing = [
        job
        for job in dict.fromkeys(jobs.values())
        if read_statistics(cache, entries[job.key]) is None
    ]
    refused: dict[bytes, str] = {}  # by the key of a job
    if missing:
        tensors = {job.tensor for job in missing}
        session = open_with_outputs(model, tensors, engine.device, engine.threads)
        passes = Passes(images=survey.images, batch=dataset.batch, sampling=sampling)
        wanted = []
        for job in measure_sizes(session, dataset, missing):
            try:
                passes.check(job)
                wanted.append(job)
            except DataError as error:
                refused[job.key] = layer_reason(error)
        groups = passes.group(wanted)
        total = len(groups) * survey.images
        for number, group in enumerate(groups):
            step = f"statistics of layer inputs, pass {number + 1} of {len(groups)}"
            done = number * survey.images
            sums, failed = passes.accumulators(group), dict[Job, str]()
            for images in collect(session, dataset, sums, passes, refused=failed):
                progress(step, done + images, total)
            for job in list(sums):
                try:
                    found = sums.pop(job).result()
                except LAYER_ERRORS as error:
                    failed[job] = layer_reason(error)
                else:
                    cache.put_arrays(entries[job.key], found.to_arrays())
            refused |= {job.key: reason for job, reason in failed.items()}
    return StoredStatistics(
        cache,
        {layer: entries[job.key] for layer, job in jobs.items()},
        {layer: refused[job.key] for layer, job in jobs.items() if job.key in refused},
    )


def statistics_keys(
    model: onnx.ModelProto,
    survey: Survey,
    layers: Sequence[str],
    *,
    sampling: Sampling = SAMPLING,
    engine: Engine = CPU,
) -> dict[str, str]:
    """Return, by layer name, a hash of all that the statistics of `calibrate` depend on.

    Parameters
    ----------
    model, layers, sampling, engine
        As of `calibrate`.
    survey : Survey
        What a first look at the data told.

    Raises
    ------
    PlanError
        A layer is unknown, or cannot be read.
    """
    common = _common_key(model, survey, sampling, engine)
    jobs = find_jobs(model, layers, survey.shapes)
    return {layer: _entry(common, job) for layer, job in jobs.items()}


def _common_key(model: onnx.ModelProto, survey: Survey, sampling: Sampling, engine: Engine) -> str:
    settings = (sampling.positions, sampling.seed, engine.device)
    return key_of(FORMAT, *settings, survey.digest, model_digest(model))


def _entry(common: str, job: Job) -> str:
    return key_of(common, job.key)
